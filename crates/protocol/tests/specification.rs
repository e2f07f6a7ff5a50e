//! `PROTOCOL.md` says what the code does: its tables read every golden file, its examples are golden
//! files, and its numbers are those of the code.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod samples;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use dph_agent_protocol::{
    AuditMode, ChangeMode, ChangeOutcome, ErrorCode, FRAME_TIMEOUT, HELLO_TIMEOUT, IDLE_TIMEOUT,
    KeySourceKind, KeyState, MAX_DEADLINE_MS, MAX_READ_AHEAD, MAX_TOKEN_LEN, PAGE_LEN, PlatformKind,
    REPLY_TIMEOUT, RefreshMode, Reply, Request, SecretMemory, TokenState, Trust, Verdict, Warning, frame,
    version,
};
use samples::{Message, samples};

const SPECIFICATION: &str = include_str!("../PROTOCOL.md");

/// The cells of each row of a table, without quotes.
type Rows = Vec<Vec<&'static str>>;

/// Returns the table behind each heading, heads left out.
fn tables() -> BTreeMap<&'static str, Rows> {
    let mut tables = BTreeMap::new();
    let mut rows = &mut Rows::new();
    for line in SPECIFICATION.lines() {
        if let Some(heading) = line.strip_prefix("### ").or_else(|| line.strip_prefix("## ")) {
            rows = tables.entry(heading).or_default();
        } else if line.starts_with("|---") {
            rows.clear();
        } else if let Some(row) = line.strip_prefix("| ") {
            rows.push(row.split('|').map(|cell| cell.trim().trim_matches('`')).collect());
        }
    }
    tables
}

#[test]
fn every_kind_has_a_section_and_every_section_is_a_kind() {
    let in_code = Request::KINDS.iter().chain(Reply::KINDS).map(|(kind, name)| format!("{kind:#06x} {name}"));
    let in_text = tables().into_keys().filter(|heading| heading.starts_with("0x"));
    let (mut in_code, mut in_text): (Vec<_>, Vec<_>) = (in_code.collect(), in_text.collect());
    in_code.sort_unstable();
    in_text.sort_unstable();
    assert_eq!(in_code, in_text);
}

#[test]
fn every_member_of_an_open_set_has_a_row_and_every_row_is_a_member() {
    fn check<T: Copy + Display>(heading: &str, members: &[T], number: fn(T) -> u16) {
        let in_code = members.iter().map(|member| (number(*member).to_string(), member.to_string()));
        let in_text: Vec<_> =
            tables()[heading].iter().map(|row| (row[0].to_owned(), row[1].to_owned())).collect();
        assert_eq!(in_code.collect::<Vec<_>>(), in_text, "{heading}");
    }
    check("AuditMode", AuditMode::ALL, |it| it.0);
    check("ErrorCode", ErrorCode::ALL, |it| it.0);
    check("KeySourceKind", KeySourceKind::ALL, |it| it.0);
    check("KeyState", KeyState::ALL, |it| it.0);
    check("PlatformKind", PlatformKind::ALL, |it| it.0);
    check("RefreshMode", RefreshMode::ALL, |it| it.0);
    check("SecretMemory", SecretMemory::ALL, |it| it.0);
    check("TokenState", TokenState::ALL, |it| it.0);
    check("Trust", Trust::ALL, |it| it.0);
    check("Verdict", Verdict::ALL, |it| it.0);
    check("ChangeMode", ChangeMode::ALL, |it| it.0);
    check("ChangeOutcome", ChangeOutcome::ALL, |it| it.0);
    check("Warning", Warning::ALL, |it| it.0);
}

#[test]
fn limits_are_those_of_the_code() {
    let seconds = |timeout: Duration| format!("{} s", timeout.as_secs());
    let in_code = [
        ("MAX_BODY_LEN", format!("{} bytes", frame::MAX_BODY_LEN)),
        ("MAX_TOKEN_LEN", format!("{MAX_TOKEN_LEN} bytes")),
        ("MAX_DEADLINE_MS", format!("{MAX_DEADLINE_MS} ms")),
        ("PAGE_LEN", format!("{PAGE_LEN} entries")),
        ("MAX_READ_AHEAD", format!("{MAX_READ_AHEAD} requests")),
        ("HELLO_TIMEOUT", seconds(HELLO_TIMEOUT)),
        ("FRAME_TIMEOUT", seconds(FRAME_TIMEOUT)),
        ("REPLY_TIMEOUT", seconds(REPLY_TIMEOUT)),
        ("IDLE_TIMEOUT", seconds(IDLE_TIMEOUT)),
    ];
    let in_text: Vec<_> = tables()["Limits"].iter().map(|row| (row[0], row[1].to_owned())).collect();
    assert_eq!(in_text, in_code);
}

#[test]
fn kinds_of_hello_are_those_of_the_code() {
    let in_text: Vec<_> = tables()["Hello"].iter().map(|row| row[1]).collect();
    let in_code = [version::HELLO, version::WELCOME, version::VERSION_MISMATCH];
    assert_eq!(in_text, in_code.map(|kind| format!("{kind:#06x}")));
}

#[test]
fn every_example_is_a_golden_file() {
    let frames: BTreeMap<_, _> = samples().into_iter().map(|(name, it)| (name, it.to_frame())).collect();
    let mut examples = 0;
    for example in SPECIFICATION.split("```hex ").skip(1) {
        let (name, rest) = example.split_once('\n').unwrap();
        let (lines, _) = rest.split_once("```").unwrap();
        let digits = lines.lines().map(|line| line.split('#').next().unwrap());
        let bytes = digits.flat_map(str::split_whitespace).map(|byte| u8::from_str_radix(byte, 16).unwrap());
        assert_eq!(bytes.collect::<Vec<_>>(), *frames[name], "{name}");
        examples += 1;
    }
    assert_eq!(examples, 8);
}

#[test]
fn tables_read_every_golden_file() {
    let tables = tables();
    for (name, message) in samples() {
        let heading = match &message {
            Message::Hello(_) | Message::HelloReply(_) => continue,
            Message::Request(request) => format!("{:#06x} {}", request.kind(), request.name()),
            Message::Reply(reply) => format!("{:#06x} {}", reply.kind(), reply.name()),
        };
        let frame = message.to_frame();
        let mut reader = Reader { tables: &tables, rest: &frame[frame::HEADER_LEN..], fields: Vec::new() };
        reader.structure(&heading);
        assert!(reader.rest.is_empty(), "{name}: {} bytes are left over", reader.rest.len());
        let printed = format!("{message:#?}");
        // A body that is a list alone has no name in the code.
        if !heading.ends_with(" done") {
            assert_eq!(reader.fields, printed_fields(&printed), "{name}");
        }
    }
}

/// Returns the names of the fields in what `{:#?}` printed.
fn printed_fields(printed: &str) -> Vec<&str> {
    let names = printed.lines().filter_map(|line| line.trim_start().split_once(": "));
    names.map(|(name, _)| name).filter(|name| !name.contains('"')).collect()
}

/// Reads a body by nothing but the tables and the rules beside them.
struct Reader<'a> {
    tables: &'a BTreeMap<&'static str, Rows>,
    rest: &'a [u8],
    fields: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    fn structure(&mut self, heading: &str) {
        for row in &self.tables[heading] {
            self.fields.push(row[0]);
            self.value(row[1]);
        }
    }

    fn value(&mut self, of: &str) {
        match of.split_once(' ') {
            Some(("option", of)) => (0..self.flag()).for_each(|_| self.value(of)),
            Some(("list", of)) => (0..self.integer(8)).for_each(|_| self.value(of)),
            None => self.plain(of),
            Some(_) => panic!("`{of}` is not a type"),
        }
    }

    fn plain(&mut self, of: &str) {
        match of {
            "bool" => _ = self.flag(),
            "u16" => _ = self.integer(2),
            "u32" => _ = self.integer(4),
            "u64" | "i64" => _ = self.integer(8),
            "string" | "secret" => self.text(),
            heading if self.is_open_set(heading) => _ = self.integer(2),
            heading => self.structure(heading),
        }
    }

    fn text(&mut self) {
        let len = self.integer(8).try_into().unwrap();
        std::str::from_utf8(self.take(len)).unwrap();
    }

    fn is_open_set(&self, heading: &str) -> bool {
        self.tables[heading].iter().all(|row| row[0].parse::<u16>().is_ok())
    }

    fn flag(&mut self) -> u8 {
        let flag = self.take(1)[0];
        assert!(flag <= 1);
        flag
    }

    fn integer(&mut self, widest: usize) -> u64 {
        let width = match self.take(1)[0] {
            small @ ..=0xfa => return small.into(),
            0xfb => 2,
            0xfc => 4,
            0xfd => 8,
            _ => panic!("no integer begins so"),
        };
        assert!(width <= widest);
        self.take(width).iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }
}
