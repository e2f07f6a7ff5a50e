//! A terminal whose keyboard and screen are a test's.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::wait_for;

/// What was shown and not yet looked at, and the keyboard.
#[derive(Debug)]
pub struct Terminal {
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
    line: OwnedFd,
}

impl Terminal {
    pub fn new() -> Self {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let line = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        let terminal = Self { keyboard: keyboard.into(), screen: Arc::default(), line };
        terminal.watch();
        terminal
    }

    /// Keeps what is shown until the terminal is gone.
    fn watch(&self) {
        let (mut shown, screen) = (self.keyboard.try_clone().unwrap(), Arc::clone(&self.screen));
        thread::spawn(move || {
            let mut part = [0; 4096];
            while let Ok(len @ 1..) = shown.read(&mut part) {
                screen.lock().unwrap().extend(part.iter().take(len));
            }
        });
    }

    /// Returns the program's end, for its standard input and what else is to be seen here.
    pub fn line(&self) -> OwnedFd {
        self.line.try_clone().unwrap()
    }

    /// Returns `command` as the leader of a session that this terminal controls.
    pub fn controlling(&self, command: &Command) -> Command {
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.env_clear().stdin(self.line());
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.current_dir(command.get_current_dir().unwrap());
        session
    }

    /// Waits for `text` and returns what was shown up to its end since this was last asked for.
    pub fn shown_until(&self, text: &str) -> String {
        wait_for(text, || {
            let mut screen = self.screen.lock().unwrap();
            let end = screen.windows(text.len()).position(|part| part == text.as_bytes())? + text.len();
            Some(String::from_utf8(screen.drain(..end).collect()).unwrap())
        })
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}
