//! Questions to the person at the terminal.

use std::io;

use dph_agent_protocol::Secret;

use crate::exit::{Code, Error};
use crate::output::visible;
use crate::secret;

#[cfg(unix)]
use unix as terminal;
#[cfg(windows)]
use windows as terminal;

/// Asks for a key, without showing what is typed.
///
/// # Errors
///
/// `no_terminal` where there is nobody to ask.
pub(crate) fn key(question: &str, no_terminal: Error) -> Result<Secret, Error> {
    match terminal::ask_hidden(&visible(question)) {
        Ok(answer) => secret::key(&answer),
        Err(error) => Err(unasked(&error, no_terminal)),
    }
}

/// Asks for a passphrase, which may be empty, without showing what is typed.
///
/// # Errors
///
/// `no_terminal` where there is nobody to ask.
pub(crate) fn passphrase(question: &str, no_terminal: Error) -> Result<Secret, Error> {
    match terminal::ask_hidden(question) {
        Ok(answer) => secret::passphrase(&answer),
        Err(error) => Err(unasked(&error, no_terminal)),
    }
}

/// Asks for one line.
///
/// # Errors
///
/// `no_terminal` where there is nobody to ask.
pub(crate) fn line(question: &str, no_terminal: Error) -> Result<String, Error> {
    terminal::ask(&visible(question)).map_err(|error| unasked(&error, no_terminal))
}

/// Shows a line where the questions are asked.
pub(crate) fn show(line: &str) {
    // Where there is no terminal, the question that follows says so.
    terminal::show(&(visible(line) + "\n")).unwrap_or_default();
}

fn unasked(error: &io::Error, no_terminal: Error) -> Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return Error::with(Code::Interrupted, "interrupted", "nothing was changed");
    }
    if error.kind() == io::ErrorKind::FileTooLarge {
        return Error::usage("what was typed is too long for a key", "paste the key alone");
    }
    no_terminal
}

#[cfg(unix)]
mod unix {
    use std::fs::{File, OpenOptions};
    use std::io::{self, BufRead, BufReader, Read, Write};

    use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

    use crate::secret::MAX_KEY_LEN;
    use crate::wiped::Wiped;

    pub(super) fn show(text: &str) -> io::Result<()> {
        open()?.write_all(text.as_bytes())
    }

    pub(super) fn ask(question: &str) -> io::Result<String> {
        let mut terminal = open()?;
        terminal.write_all(question.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(terminal).take(1024).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    pub(super) fn ask_hidden(question: &str) -> io::Result<Wiped> {
        let mut terminal = Hidden::new(open()?)?;
        terminal.file.write_all(question.as_bytes())?;
        let answer = read_line(&mut terminal.file);
        terminal.file.write_all(b"\n")?;
        answer
    }

    fn open() -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open("/dev/tty")
    }

    /// A terminal that shows nothing and passes every key on, as long as this lives. Also Ctrl-C is
    /// passed on, for a signal would end us before the terminal is as it was.
    struct Hidden {
        file: File,
        before: Termios,
    }

    impl Hidden {
        fn new(file: File) -> io::Result<Self> {
            let before = termios::tcgetattr(&file)?;
            let mut hidden = before.clone();
            let off = LocalModes::ECHO
                | LocalModes::ECHONL
                | LocalModes::ICANON
                | LocalModes::ISIG
                | LocalModes::IEXTEN;
            hidden.local_modes.remove(off);
            hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
            hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
            termios::tcsetattr(&file, OptionalActions::Flush, &hidden)?;
            Ok(Self { file, before })
        }
    }

    impl Drop for Hidden {
        fn drop(&mut self) {
            // A terminal that is gone needs no echo.
            termios::tcsetattr(&self.file, OptionalActions::Flush, &self.before).unwrap_or_default();
        }
    }

    const CTRL_C: u8 = 0x03;
    const CTRL_D: u8 = 0x04;
    const BACKSPACE: u8 = 0x08;
    const CTRL_U: u8 = 0x15;
    const DELETE: u8 = 0x7f;

    fn read_line(terminal: &mut dyn Read) -> io::Result<Wiped> {
        let mut line = Wiped(Vec::with_capacity(MAX_KEY_LEN));
        let mut byte = [0];
        loop {
            if terminal.read(&mut byte)? == 0 {
                return Ok(line);
            }
            match byte[0] {
                b'\r' | b'\n' | CTRL_D => return Ok(line),
                CTRL_C => return Err(io::ErrorKind::Interrupted.into()),
                CTRL_U => line.clear(),
                BACKSPACE | DELETE => erase_character(&mut line),
                _ if line.len() == MAX_KEY_LEN => return Err(io::ErrorKind::FileTooLarge.into()),
                byte => line.push(byte),
            }
        }
    }

    fn erase_character(line: &mut Wiped) {
        let continues = |byte: u8| byte & 0xc0 == 0x80;
        while line.pop().is_some_and(continues) {}
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        fn typed(keys: &[u8]) -> io::Result<Vec<u8>> {
            read_line(&mut &keys[..]).map(|line| line.to_vec())
        }

        #[test]
        fn typed_line_can_be_corrected_and_given_up() {
            assert_eq!(typed(b"abx\xc3\xa9\x7f\x7fc\rrest").unwrap(), b"abc");
            assert_eq!(typed(b"wrong\x15right\n").unwrap(), b"right");
            assert_eq!(typed(b"ab\x03").unwrap_err().kind(), io::ErrorKind::Interrupted);
            assert_eq!(typed(b"\x7f\x04").unwrap(), b"");
        }
    }
}

#[cfg(windows)]
mod windows {
    use std::fs::OpenOptions;
    use std::io::{self, BufRead, BufReader, Read, Write};

    use crate::wiped::Wiped;

    pub(super) fn show(text: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open("CONOUT$")?.write_all(text.as_bytes())
    }

    pub(super) fn ask(question: &str) -> io::Result<String> {
        show(question)?;
        let console = OpenOptions::new().read(true).write(true).open("CONIN$")?;
        let mut answer = String::new();
        BufReader::new(console).take(1024).read_line(&mut answer)?;
        Ok(answer.trim().to_owned())
    }

    pub(super) fn ask_hidden(question: &str) -> io::Result<Wiped> {
        rpassword::prompt_password(question).map(|answer| Wiped(answer.into_bytes()))
    }
}
