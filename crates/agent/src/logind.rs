//! Locks when the machine goes to sleep or the screen is locked, where the configuration wants it.
//!
//! Only then is there a connection to the system bus. A lock that would not come is worse than none, so
//! whatever is in its way is shown by `status`.

#[cfg(all(target_os = "linux", feature = "logind"))]
mod bus;
#[cfg(not(all(target_os = "linux", feature = "logind")))]
#[path = "logind/no_bus.rs"]
mod bus;

use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use crate::handle::Desk;
use crate::lock::LockOn;

pub use bus::{LogindError, probe};

/// Pause after the first failure; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// Why somebody stopped listening to logind.
enum Ended {
    /// Something else is wanted, or the agent is at its end.
    Changed,
    /// It cannot be heard.
    Failed(LogindError),
}

impl<E: Into<LogindError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Notices what is to lock the agent, for as long as that lives.
pub(crate) async fn obey(desk: Arc<Desk>) {
    let mut wanted = desk.vault.lock_on();
    while wanted.has_changed().is_ok() {
        let on = *wanted.borrow_and_update();
        if on.is_nothing() {
            Report::clear(&desk);
            changed(&mut wanted).await;
        } else {
            keep_listening(on, &mut wanted, &desk).await;
        }
    }
}

async fn changed(wanted: &mut watch::Receiver<LockOn>) {
    // An agent at its end wants nothing any more, which is a change, too.
    let _vault_has_gone = wanted.changed().await.is_err();
}

/// Tries again and again, until something else is wanted.
async fn keep_listening(on: LockOn, wanted: &mut watch::Receiver<LockOn>, desk: &Desk) {
    let mut report = Report::new(on, desk);
    let mut pause = FIRST_PAUSE;
    loop {
        let begun = Instant::now();
        match Box::pin(bus::listen(on, wanted, &mut report)).await {
            Ended::Changed => return,
            Ended::Failed(error) => report.trouble(&error),
        }
        if begun.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
            () = changed(wanted) => return,
        }
    }
}

/// Tells log and `status` whether the agent would notice what is to lock it.
struct Report<'a> {
    on: LockOn,
    desk: &'a Desk,
    last: Option<Discriminant<LogindError>>,
}

impl<'a> Report<'a> {
    fn new(on: LockOn, desk: &'a Desk) -> Self {
        let report = Self { on, desk, last: None };
        report.tell(Some(format!("{}: logind has not answered yet", on.keys())));
        report
    }

    fn clear(desk: &Desk) {
        *desk.lock_on_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn tell(&self, problem: Option<String>) {
        *self.desk.lock_on_error.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    /// Logs a failure: the first of a kind is a warning, its repeats are not.
    fn trouble(&mut self, error: &LogindError) {
        let keys = self.on.keys();
        if self.last.replace(discriminant(error)) == Some(discriminant(error)) {
            debug!(keys, %error, "still not in force");
        } else {
            warn!(keys, %error, "not in force: the agent would not notice what is to lock it");
        }
        self.tell(Some(format!("{keys}: {error}")));
    }

    /// Logs a success, which is news after a failure.
    #[cfg_attr(
        not(all(target_os = "linux", feature = "logind")),
        expect(dead_code, reason = "only logind makes it work")
    )]
    fn works(&mut self) {
        let keys = self.on.keys();
        match self.last.take() {
            Some(_) => info!(keys, "in force again"),
            None => debug!(keys, "in force"),
        }
        self.tell(None);
    }
}
