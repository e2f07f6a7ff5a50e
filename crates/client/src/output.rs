//! Standard output for what was asked for, standard error for people.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;

use dph_agent_protocol::ErrorCode;

use crate::cli::{Args, Opt};
use crate::exit::Error;
use crate::json::Json;

/// Writes `bytes` to standard output. That nobody reads them is not our failure.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::new(
            ErrorCode::FAILED,
            &format!("cannot write to standard output: {error}"),
            "check where the output goes",
        )),
        _ => Ok(()),
    }
}

/// Warns, unless the user wants quiet.
pub(crate) fn warn(args: &Args, warning: &str) {
    tell(args, &format!("warning: {warning}"));
}

/// Writes one line to standard error, unless the user wants quiet.
pub(crate) fn tell(args: &Args, line: &str) {
    if !args.has(Opt::Quiet) {
        write_stderr(&(visible(line) + "\n"));
    }
}

/// Reports `error`, as two lines or as one JSON object, and returns the exit status.
pub(crate) fn report(error: &Error, as_json: bool) -> ExitCode {
    if as_json {
        report_json(error)
    } else {
        report_lines(error)
    }
    ExitCode::from(error.code.status())
}

fn report_lines(error: &Error) {
    let mut text = format!("error: {}\n", visible(&error.message));
    if !error.hint.is_empty() {
        // Writing to a string cannot fail.
        writeln!(text, "hint: {}", visible(&error.hint)).unwrap_or_default();
    }
    write_stderr(&text);
}

fn report_json(error: &Error) {
    let mut json = Json::with_capacity(256);
    json.object("").text("code", &error.code.word()).text("message", &error.message);
    json.text("hint", &error.hint);
    json.optional_number("retry_after", error.retry_after_ms.map(|ms| ms.div_ceil(1000))).close("}");
    write_stderr(&String::from_utf8_lossy(&json.finish()));
}

/// Writes `text` at once, so that lines of several processes do not mix.
fn write_stderr(text: &str) {
    // There is nobody left to tell.
    io::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

/// Returns `text` without what would steer a terminal or reorder what it shows.
pub(crate) fn visible(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !reorders(*c)).collect()
}

fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        assert_eq!(visible("a\u{1b}[2Jb\r\nc\u{9b}d\u{202e}é"), "a[2Jbcdé");
    }
}
