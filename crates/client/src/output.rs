//! Standard output for what was asked for, standard error for people.

use std::fmt::Write as _;
use std::io::{self, IoSlice, Write};
use std::process::ExitCode;

use dph_agent_protocol::ErrorCode;

use crate::cli::{Args, Opt};
use crate::exit::Error;
use crate::json::Json;

/// Writes `bytes` to standard output. That nobody reads them is not our failure.
pub(crate) fn print(bytes: &[u8]) -> Result<(), Error> {
    print_both(bytes, &[])
}

/// Writes both to standard output, at once and without a copy of either.
pub(crate) fn print_both(first: &[u8], second: &[u8]) -> Result<(), Error> {
    match write_both(&mut stdio::stdout(), first, second) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let problem = format!("cannot write to standard output: {error}");
            Err(Error::new(ErrorCode::FAILED, &problem, "check where the output goes"))
        }
        _ => Ok(()),
    }
}

/// Writes both, at once unless the system takes less.
pub(crate) fn write_both(to: &mut dyn Write, first: &[u8], second: &[u8]) -> io::Result<()> {
    let written = to.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?;
    to.write_all(first.get(written..).unwrap_or_default())?;
    to.write_all(second.get(written.saturating_sub(first.len())..).unwrap_or_default())?;
    to.flush()
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

/// Writes each note of the agent to standard error, unless the user wants quiet.
pub(crate) fn tell_notes(args: &Args, notes: &[String]) {
    for note in notes {
        tell(args, &format!("note: {note}"));
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

fn write_stderr(text: &str) {
    // There is nobody left to tell.
    stdio::stderr().write_all(text.as_bytes()).unwrap_or_default();
}

/// The standard streams without the buffer of [`io::stdout`], which would keep a copy of a token.
#[cfg(unix)]
mod stdio {
    use std::io::{self, IoSlice, Write};
    use std::os::fd::BorrowedFd;

    pub(super) struct Stream(BorrowedFd<'static>);

    pub(super) fn stdout() -> Stream {
        Stream(rustix::stdio::stdout())
    }

    pub(super) fn stderr() -> Stream {
        Stream(rustix::stdio::stderr())
    }

    impl Write for Stream {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(rustix::io::write(self.0, bytes)?)
        }

        fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            Ok(rustix::io::writev(self.0, parts)?)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}

/// The standard streams; a console takes only text, which the standard library translates.
#[cfg(windows)]
mod stdio {
    pub(super) use std::io::{stderr, stdout};
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
