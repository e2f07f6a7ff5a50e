//! The question whether a request may go on, put by a program of the user's choice, as ssh-askpass does.

use std::env;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::own_session::OwnSession;

/// Whether a program could show a window: elsewhere than on Unix with its display servers always.
pub fn has_display() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(any(windows, target_os = "macos")) || is_set("DISPLAY") || is_set("WAYLAND_DISPLAY")
}

/// Puts a question and returns whether the answer is yes, that is, whether the program ends well.
///
/// # Errors
///
/// When it cannot be run.
///
/// # Cancel safety
///
/// The program is killed with all that it started.
pub async fn ask(program: &Path, question: &str) -> io::Result<bool> {
    let mut command = Command::new(program);
    // The variable is OpenSSH's, and lets the program show two buttons instead of a field for a passphrase.
    command.arg(question).env("SSH_ASKPASS_PROMPT", "confirm").stdout(Stdio::null());
    Ok(OwnSession::start(command)?.wait().await?.success())
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn program(folder: &tempfile::TempDir, script: &str) -> std::path::PathBuf {
        let path = folder.path().join("askpass");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    async fn answer(script: &str, question: &str) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let program = program(&folder, script);
        loop {
            match ask(&program, question).await {
                // Another test that starts a program at this moment holds a copy of what was just written.
                Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => {}
                answer => return answer.unwrap(),
            }
        }
    }

    #[tokio::test]
    async fn the_question_is_the_only_argument_and_the_end_is_the_answer() {
        let script = r#"[ $# = 1 ] && [ "$1" = 'May it; $(x)?' ] && [ "$SSH_ASKPASS_PROMPT" = confirm ]"#;
        assert!(answer(script, "May it; $(x)?").await);
        assert!(!answer(script, "another").await);
        assert!(!answer("echo yes; exit 1", "?").await);
        assert!(!answer("kill -9 $$", "?").await);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error() {
        assert!(ask(Path::new("/nowhere/askpass"), "?").await.is_err());
    }
}
