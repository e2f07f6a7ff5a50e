//! How quickly one caller is answered while others try wrong passphrases as quickly as they can.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use dph_agent_protocol::{Request, Secret, Unlock};

use crate::caller;
use crate::measure::median;

/// Who tries.
const GUESSERS: usize = 40;
/// Pings that are timed, each alone.
const PINGS: usize = 400;

/// Returns the median time of a ping to an agent that has nothing else to do, and the median while forty
/// connections try wrong passphrases.
///
/// # Errors
///
/// When the agent does not answer.
pub(crate) fn pings(socket: &Path) -> io::Result<(Duration, Duration)> {
    let alone = median_ping(socket)?;
    let stop = AtomicBool::new(false);
    let beside = thread::scope(|scope| {
        let guessers: Vec<_> =
            (0..GUESSERS).map(|_| scope.spawn(|| guess(socket.to_owned(), &stop))).collect();
        let beside = median_ping(socket);
        stop.store(true, Ordering::Relaxed);
        for guesser in guessers {
            // One that was turned away has done what it was there for.
            drop(guesser.join());
        }
        beside
    });
    Ok((alone, beside?))
}

fn median_ping(socket: &Path) -> io::Result<Duration> {
    let mut caller = caller::connect(socket, &Request::Ping)?;
    Ok(median((0..PINGS).map(|_| caller.time_of_one(1)).collect::<io::Result<_>>()?))
}

fn guess(socket: PathBuf, stop: &AtomicBool) -> io::Result<()> {
    let passphrase = Some(Secret::new("not the one".to_owned()));
    let mut caller = caller::connect(&socket, &Request::Unlock(Unlock { passphrase, deadline_ms: 200 }))?;
    while !stop.load(Ordering::Relaxed) {
        caller.time_of_one(1)?;
    }
    Ok(())
}
