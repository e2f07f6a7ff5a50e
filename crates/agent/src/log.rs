//! What the agent says, on standard error: one line an event, no secret, no escape sequences.
//!
//! A thread of its own writes the lines, so that a log which nobody reads or which cannot be written
//! holds up nobody and ends nothing.

pub mod file;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::warn;

/// Stack of the thread that writes. The default of 2 MiB is a huge page to Linux, touched as a whole.
const STACK: usize = 128 * 1024;
/// Bytes that wait for a slow reader; lines that find no room are dropped, and counted.
const MAX_WAITING: usize = 256 * 1024;
/// How long the end of the agent waits for a slow reader.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Where lines wait until they are written; what does not fit is dropped.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    dropped: u64,
    /// Lines that waited are on their way.
    writing: bool,
}

/// Starts logging to standard error, which is `file` where one is named; of several calls only the first one counts.
///
/// # Errors
///
/// When the system has no thread for it.
pub fn start(format: LogFormat, level: LevelFilter, file: Option<PathBuf>) -> io::Result<Log> {
    let log = Log::default();
    let writer = log.clone();
    thread::Builder::new()
        .name("log".to_owned())
        .stack_size(STACK)
        .spawn(move || writer.write_to(file::Stderr::new(file)))?;
    let make = log.clone();
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(move || make.clone())
        .with_ansi(false)
        .with_target(false)
        .log_internal_errors(false);
    let _started_before = match format {
        LogFormat::Text => lines.try_init().is_err(),
        LogFormat::Json => lines.json().flatten_event(true).try_init().is_err(),
    };
    Ok(log)
}

impl Log {
    /// Waits until everything is written, though not for a reader who does not read.
    pub fn drain(&self) {
        let busy = |waiting: &mut Waiting| waiting.writing || !waiting.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(self.waiting(), DRAIN_TIMEOUT, busy));
    }

    fn write_to(&self, mut out: impl Write) {
        loop {
            let (lines, dropped) = self.take();
            // There is nobody else to tell.
            let _lost = out.write_all(&lines).is_err();
            if dropped > 0 {
                warn!(dropped, "nobody read the log: lines were dropped");
            }
        }
    }

    /// Waits for lines, and takes them with the number of those that were dropped behind them.
    fn take(&self) -> (Vec<u8>, u64) {
        let mut waiting = self.waiting();
        waiting.writing = false;
        self.0.changed.notify_all();
        let empty = |waiting: &mut Waiting| waiting.lines.is_empty();
        let mut waiting = self.0.changed.wait_while(waiting, empty).unwrap_or_else(PoisonError::into_inner);
        waiting.writing = true;
        (std::mem::take(&mut waiting.lines), std::mem::take(&mut waiting.dropped))
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes one line, or several that belong together, with each call.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.lines.len() + line.len() > MAX_WAITING {
            waiting.dropped += 1;
        } else {
            waiting.lines.extend_from_slice(line);
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Hands over what is written, one piece each time somebody is there to take it.
    struct Slow(mpsc::SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_to(out: impl Write + Send + 'static) -> Log {
        let log = Log::default();
        let writer = log.clone();
        thread::spawn(move || writer.write_to(out));
        log
    }

    #[test]
    fn lines_that_a_slow_reader_leaves_no_room_for_are_dropped_and_counted() {
        let (sender, reader) = mpsc::sync_channel(0);
        let mut log = log_to(Slow(sender));
        log.write_all(b"first\n").unwrap();
        while !log.waiting().writing {
            thread::yield_now();
        }
        let line = [b'x'; MAX_WAITING / 2];
        for _ in 0..3 {
            log.write_all(&line).unwrap();
        }
        assert_eq!(log.waiting().dropped, 1);
        assert_eq!(reader.recv().unwrap(), b"first\n");
        assert_eq!(reader.recv().unwrap().len(), 2 * line.len());
        log.drain();
        assert_eq!(log.waiting().dropped, 0, "they were told");
    }

    #[test]
    fn a_log_that_cannot_be_written_is_no_error() {
        let (sender, reader) = mpsc::sync_channel(0);
        drop(reader);
        let mut log = log_to(Slow(sender));
        log.write_all(b"lost\n").unwrap();
        log.drain();
        assert!(log.waiting().lines.is_empty());
    }
}
