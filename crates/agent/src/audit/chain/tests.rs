use super::super::record::{Entry, Event};
use super::*;

/// Returns the lines of `events`, each with its line feed, behind `head`, and the chain behind them.
fn lines_behind(mut head: Head, events: &[Event]) -> (Vec<String>, Head) {
    let mut lines = Vec::new();
    for event in events {
        let (line, hash) = seal(Entry::own(1_795_491_005, event.clone()).body(&head).unwrap());
        head = Head { seq: head.seq + 1, hash };
        lines.push(line);
    }
    (lines, head)
}

fn token(profile: &str) -> Event {
    Event::Token { profile: Some(profile.to_owned()), token: None }
}

/// Returns a log of one file with five lines.
fn five() -> (Vec<String>, Head) {
    lines_behind(
        Head::genesis(),
        &[Event::File, token("a"), token("b"), Event::Lost { lines: 3 }, token("c")],
    )
}

fn verify(bytes: &[u8], sought: Option<&str>) -> Result<Whole, Fault> {
    verify_all(&[bytes], sought)
}

fn verify_all(files: &[&[u8]], sought: Option<&str>) -> Result<Whole, Fault> {
    let mut chain = Chain::new(sought.map(str::to_owned));
    for (at, bytes) in files.iter().enumerate() {
        chain.file(&format!("file {at}"), bytes, at + 1 == files.len())?;
    }
    chain.finish()
}

fn fault(bytes: &[u8]) -> (usize, What) {
    let fault = verify(bytes, None).unwrap_err();
    (fault.line, fault.what)
}

#[test]
fn a_whole_log_ends_in_its_head_and_tells_what_was_lost() {
    let (lines, head) = five();
    let whole = verify(lines.concat().as_bytes(), None).unwrap();
    assert_eq!((whole.head, whole.lines, whole.since), (head, 5, None));
    assert_eq!(whole.remarks, [Remark::Lost { file: "file 0".to_owned(), line: 4, lines: 3 }]);
    assert_eq!(verify(b"", None).unwrap().head, Head::genesis());
}

#[test]
fn every_change_of_a_single_byte_is_found() {
    let (lines, _) = five();
    let log = lines.concat().into_bytes();
    for at in 0..log.len() {
        for change in [1, 2, 0x20, 0x80, log[at] ^ b'\n', log[at], log[at] ^ b'"'] {
            let mut changed = log.clone();
            changed[at] ^= change;
            if changed != log {
                assert!(verify(&changed, None).is_err(), "byte {at}: {:?}", changed[at] as char);
            }
        }
    }
}

#[test]
fn lines_that_are_gone_doubled_swapped_or_new_are_found_where_they_are() {
    let (lines, _) = five();
    let of = |order: &[usize]| order.iter().map(|at| lines[*at].as_str()).collect::<String>();
    for at in 1..4 {
        let order: Vec<_> = (0..5).filter(|line| *line != at).collect();
        assert_eq!(fault(of(&order).as_bytes()), (at + 1, What::OutOfOrder), "without {at}");
    }
    assert_eq!(fault(of(&[1, 2, 3, 4]).as_bytes()), (1, What::NoBeginning));
    assert_eq!(fault(of(&[0, 1, 1, 2, 3, 4]).as_bytes()), (3, What::OutOfOrder));
    assert_eq!(fault(of(&[0, 2, 1, 3, 4]).as_bytes()), (2, What::OutOfOrder));
    let (new, _) = lines_behind(Head::genesis(), &[token("new")]);
    assert_eq!(fault((of(&[0, 1]) + &new[0] + &of(&[2, 3, 4])).as_bytes()), (3, What::OutOfOrder));
    assert_eq!(fault((of(&[0, 1]) + "\n" + &of(&[2, 3, 4])).as_bytes()), (3, What::Changed));
    assert_eq!(fault((of(&[0, 1, 2, 3, 4]) + "\n").as_bytes()), (6, What::Changed));
}

#[test]
fn an_end_that_was_cut_off_is_shown_by_a_head_that_is_known_and_by_nothing_else() {
    let (lines, head) = five();
    let cut = lines[..4].concat();
    assert!(verify(cut.as_bytes(), None).is_ok());
    assert_eq!(verify(cut.as_bytes(), Some(&head.hash)).unwrap_err().what, What::NoSuchHead);
    let (all, third) = (lines.concat(), Sound::parse(lines[2].trim_end().as_bytes()).unwrap().hash);
    assert_eq!(verify(all.as_bytes(), Some(&head.hash[..16])).unwrap().since, Some(0));
    assert_eq!(verify(all.as_bytes(), Some(third)).unwrap().since, Some(2), "two lines came since");
}

#[test]
fn an_unfinished_last_line_is_told_from_a_changed_one() {
    let (lines, _) = five();
    let log = lines.concat();
    let begin = log.len() - lines[4].len();
    for len in begin + 1..log.len() {
        let whole = verify(&log.as_bytes()[..len], None).unwrap();
        let torn = Remark::TornEnd { file: "file 0".to_owned(), line: 5 };
        assert_eq!(whole.remarks.last(), Some(&torn), "{len} bytes");
    }
    let zeros = [&log.as_bytes()[..begin + 200], &[0; 300]].concat();
    assert!(verify(&zeros, None).is_ok(), "blocks that never arrived");
    let foreign = log[..begin].to_owned() + "{\"prev\":\"0123";
    assert_eq!(fault(foreign.as_bytes()), (5, What::Changed));
}

/// Returns a log in which an unfinished line was left behind and the agent went on.
fn torn() -> (String, String, String) {
    let (lines, head) = five();
    let rest = lines_behind(head.clone(), &[token("never")]).0.concat()[..150].to_owned();
    let event = Event::Torn { bytes: 150, sha256: sha256(rest.as_bytes()) };
    (lines.concat(), rest, lines_behind(head, &[event, token("d")]).0.concat())
}

#[test]
fn the_rest_of_an_unfinished_line_stays_as_it_was_and_the_chain_goes_on_behind_it() {
    let (before, rest, behind) = torn();
    let whole = verify(format!("{before}{rest}\n{behind}").as_bytes(), None).unwrap();
    assert_eq!(whole.remarks.last(), Some(&Remark::Torn { file: "file 0".to_owned(), line: 7 }));
    let altered = rest.replace("token", "TOKEN");
    for wrong in [format!("{before}{altered}\n{behind}"), format!("{before}{behind}")] {
        assert_eq!(verify(wrong.as_bytes(), None).unwrap_err().what, What::RestChanged);
    }
}

#[test]
fn a_whole_line_cannot_be_passed_off_as_an_unfinished_one() {
    let (lines, _) = five();
    let forged = lines[4].replace("\"c\"", "\"x\"").trim_end().to_owned();
    let head = Sound::parse(lines[3].trim_end().as_bytes()).unwrap().head();
    let event = Event::Torn { bytes: forged.len() as u64, sha256: sha256(forged.as_bytes()) };
    let behind = lines_behind(head, &[event]).0.concat();
    let log = format!("{}{forged}\n{behind}", lines[..4].concat());
    assert_eq!(verify(log.as_bytes(), None).unwrap_err().what, What::RestChanged);
}

#[test]
fn each_file_follows_the_one_before_and_older_ones_may_be_gone() {
    let (first, head) = five();
    let (second, head) = lines_behind(head, &[Event::File, token("d")]);
    let (third, _) = lines_behind(head, &[Event::File, token("e")]);
    let [first, second, third] = [first, second, third].map(|lines| lines.concat().into_bytes());
    assert!(verify_all(&[&first, &second, &third], None).is_ok());
    let whole = verify_all(&[&second, &third], None).unwrap();
    assert_eq!(whole.remarks, [Remark::Older { seq: 6 }]);
    let gap = verify_all(&[&first, &third], None).unwrap_err();
    assert_eq!((gap.file.as_str(), gap.line, gap.what), ("file 1", 1, What::OutOfOrder));
    let cut = &first[..first.len() - 1];
    assert_eq!(
        verify_all(&[cut, &second], None).unwrap_err().what,
        What::Changed,
        "only the newest may be cut"
    );
    let (not_begun, _) = lines_behind(Head::genesis(), &[token("x")]);
    assert_eq!(fault(not_begun.concat().as_bytes()), (1, What::NoBeginning));
}

#[test]
fn what_the_agent_itself_found_is_a_fault() {
    let (lines, _) =
        lines_behind(Head::genesis(), &[Event::File, Event::Disturbed { expected: "0".repeat(64) }]);
    assert_eq!(fault(lines.concat().as_bytes()), (2, What::Disturbed));
}

#[test]
fn the_last_sound_line_is_found_with_its_end() {
    let (lines, head) = five();
    let log = lines.concat();
    assert_eq!(last_sound(log.as_bytes()), Some((head.clone(), log.len())));
    assert_eq!(last_sound(log.trim_end().as_bytes()), Some((head.clone(), log.len() - 1)));
    let torn = format!("{log}{{\"prev\":\"01\n\n{{");
    assert_eq!(last_sound(torn.as_bytes()), Some((head, log.len())));
    assert_eq!(last_sound(b"{}\n"), None);
}

#[test]
fn a_head_is_given_in_hexadecimal_digits() {
    assert_eq!(parse_head(&"AB".repeat(8)), Ok("ab".repeat(8)));
    assert!(parse_head("ab").is_err() && parse_head(&"xy".repeat(8)).is_err());
}

#[test]
fn the_example_of_the_specification_is_a_whole_log() {
    let specification = include_str!("../../../AUDIT.md");
    let (_, rest) = specification.split_once("```jsonl\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    assert_eq!(verify(example.as_bytes(), None).unwrap().lines, 3);
    let begin = Entry::own(1_795_491_005, Event::File).body(&Head::genesis()).unwrap();
    assert_eq!(example.lines().next(), Some(seal(begin).0.trim_end()));
    let token = crate::audit::TokenDigest::of("eyJ.new.sig");
    assert!(example.contains(token.as_str()));
}
