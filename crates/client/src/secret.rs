//! Keys and tokens on their way in: read into room that never moves and is wiped.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use dph_agent_protocol::{ErrorCode, MAX_TOKEN_LEN, Secret};

use crate::exit::Error;
use crate::wiped::Wiped;

/// Longest key, or file with a key, that is read.
pub(crate) const MAX_KEY_LEN: usize = 16 * 1024;

/// Reads a key from standard input.
pub(crate) fn key_from_stdin() -> Result<Secret, Error> {
    let bytes = stdin().and_then(|mut stdin| read_all(&mut stdin, MAX_KEY_LEN)).map_err(cannot_read_stdin)?;
    key(&bytes)
}

/// Reads the key in `file`: the key itself, or IBM Cloud's `apikey.json`.
pub(crate) fn key_from_file(file: &mut File, path: &Path) -> Result<Secret, Error> {
    let bytes = read_all(file, MAX_KEY_LEN).map_err(|error| cannot_read_file(path, &error))?;
    let text = text(&bytes)?;
    if !text.trim_ascii_start().starts_with('{') {
        return key(text.as_bytes());
    }
    match apikey_member(text) {
        Some(found) => key(found.as_bytes()),
        None => Err(Error::usage(
            &format!("`{}` holds no API key", path.display()),
            "it must hold the key alone, or be the `apikey.json` that IBM Cloud gives",
        )),
    }
}

/// Returns the error that the file at `path` cannot be read.
pub(crate) fn cannot_read_file(path: &Path, error: &io::Error) -> Error {
    Error::usage(&format!("cannot read `{}`: {error}", path.display()), "name a readable file")
}

/// Reads from standard input the token that the platform refused, bare or as in a header.
pub(crate) fn token_from_stdin() -> Result<Secret, Error> {
    let bytes =
        stdin().and_then(|mut stdin| read_all(&mut stdin, MAX_TOKEN_LEN)).map_err(cannot_read_stdin)?;
    let token = without_newline(text(&bytes)?);
    match token.strip_prefix("Bearer ").unwrap_or(token) {
        "" => Err(Error::usage(
            "standard input holds no token",
            "pipe the token that was refused into `--reject`",
        )),
        token => Ok(copied(token)),
    }
}

/// Reads passphrases from standard input, `count` lines.
pub(crate) fn passphrases_from_stdin(count: usize) -> Result<Vec<Secret>, Error> {
    let bytes = stdin().and_then(|mut stdin| read_all(&mut stdin, MAX_KEY_LEN)).map_err(cannot_read_stdin)?;
    let lines: Vec<_> = without_newline(text(&bytes)?).split('\n').collect();
    if lines.len() != count || lines.contains(&"") {
        return Err(Error::usage(
            &format!("standard input holds {} lines, and {count} must be there", lines.len()),
            "give one passphrase a line: the one that is set first, then the new one",
        ));
    }
    Ok(lines.into_iter().map(|line| copied(without_newline(line))).collect())
}

/// Returns a passphrase that was typed.
pub(crate) fn passphrase(bytes: &[u8]) -> Result<Secret, Error> {
    text(bytes).map(copied)
}

/// Checks that `bytes` are a key, and returns it without the newline behind it.
pub(crate) fn key(bytes: &[u8]) -> Result<Secret, Error> {
    let key = without_newline(text(bytes)?);
    if key.is_empty() {
        return Err(Error::usage(
            "the key is empty",
            "type it, or give it by `--key-stdin` or `--key-file FILE`",
        ));
    }
    if key.contains(char::is_control) {
        return Err(Error::usage(
            "the key holds line breaks or control characters",
            "give the key alone, in one line",
        ));
    }
    Ok(copied(key))
}

fn text(bytes: &[u8]) -> Result<&str, Error> {
    // The source would quote the bytes around the fault.
    str::from_utf8(bytes)
        .ok()
        .ok_or_else(|| Error::usage("what was read is not text", "give the secret alone, in UTF-8"))
}

fn without_newline(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

/// Copies `text` into room of just its length.
fn copied(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

/// Returns standard input without the buffer of [`io::stdin`], which nobody wipes.
fn stdin() -> io::Result<File> {
    #[cfg(unix)]
    let stdin = rustix::stdio::stdin().try_clone_to_owned();
    #[cfg(windows)]
    let stdin = std::os::windows::io::AsHandle::as_handle(&io::stdin()).try_clone_to_owned();
    stdin.map(File::from)
}

fn read_all(source: &mut dyn Read, limit: usize) -> io::Result<Wiped> {
    let mut bytes = Wiped(vec![0; limit + 1]);
    let mut len = 0;
    while let Some(room) = bytes.get_mut(len..).filter(|room| !room.is_empty()) {
        match source.read(room) {
            Ok(0) => {
                bytes.truncate(len);
                return Ok(bytes);
            }
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::FileTooLarge.into())
}

fn cannot_read_stdin(error: io::Error) -> Error {
    Error::new(
        ErrorCode::FAILED,
        &format!("cannot read standard input: {error}"),
        "pipe the secret into the command",
    )
}

/// Returns the text named `apikey` of the flat JSON object that is `text`, or `None` for anything else.
fn apikey_member(text: &str) -> Option<&str> {
    let mut scanner = Scanner(text);
    let mut found = None;
    scanner.token('{')?;
    loop {
        let name = scanner.string()?;
        scanner.token(':')?;
        let value = scanner.string();
        if name == "apikey" {
            // No key that IBM makes needs an escape.
            found = Some(value.filter(|value| !value.contains('\\'))?);
        } else if value.is_none() {
            scanner.word()?;
        }
        if scanner.token(',').is_none() {
            scanner.token('}')?;
            return found.filter(|_| scanner.0.trim_ascii().is_empty());
        }
    }
}

/// What is left of a JSON document.
struct Scanner<'a>(&'a str);

impl<'a> Scanner<'a> {
    fn token(&mut self, token: char) -> Option<()> {
        self.0 = self.0.trim_ascii_start().strip_prefix(token)?;
        Some(())
    }

    /// Takes a string and returns what stands between its quotes, escapes included.
    fn string(&mut self) -> Option<&'a str> {
        let rest = self.0.trim_ascii_start().strip_prefix('"')?;
        let mut escaped = false;
        let end = rest.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let (string, rest) = rest.split_at_checked(end)?;
        self.0 = rest.strip_prefix('"')?;
        Some(string)
    }

    /// Takes a number, `true`, `false` or `null`.
    fn word(&mut self) -> Option<()> {
        let text = self.0.trim_ascii_start();
        self.0 = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "+-.".contains(c));
        (self.0.len() < text.len()).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apikey_is_found_among_other_members() {
        let text =
            r#" {"id":"ApiKey-1","name":"a \"b\\","locked":false,"n":-1.5e3,"apikey" : "k-1_A","z":null} "#;
        assert_eq!(apikey_member(text), Some("k-1_A"));
    }

    #[test]
    fn what_is_not_such_an_object_yields_nothing() {
        for text in [
            "{}",
            "[]",
            "{\"apikey\":1}",
            "{\"apikey\":\"a\"",
            "{\"apikey\":\"a\"} x",
            "{\"apikey\":\"a\",}",
            "{\"apikey\":\"a\\u0041\"}",
            "{\"a\":,\"apikey\":\"a\"}",
            "{\"a\":{},\"apikey\":\"a\"}",
            "{\"a\":\"\\\",\"apikey\":\"a\"}",
            "{\"other\":\"apikey\"}",
        ] {
            assert_eq!(apikey_member(text), None, "{text}");
        }
    }

    #[test]
    fn key_loses_one_newline_and_must_be_one_line() {
        assert_eq!(key(b"abc\r\n").unwrap().expose(), "abc");
        assert_eq!(key(b"abc").unwrap().expose(), "abc");
        for bytes in [&b""[..], b"\n", b"a\nb\n", b"a\x1b", b"\xff"] {
            assert!(key(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        assert_eq!(read_all(&mut &b"1234"[..], 4).unwrap().as_slice(), b"1234");
        assert!(read_all(&mut &b"12345"[..], 4).is_err());
    }
}
