//! Where passphrases are tried: one derivation at a time, a few waiting, slower after each wrong one.

use std::sync::Arc;

use dph_agent_protocol::{ErrorCode, Secret};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::error::Problem;
use crate::exchange::blocking_secret;
use crate::lock::pause_after;
use crate::seal::{Private, SealError, SealedPrivate};

/// Passphrases that wait while one is tried.
const MAX_WAITING: usize = 8;

/// Tries passphrases on threads where nobody else waits.
#[derive(Debug)]
pub struct Keyhole {
    places: Arc<Semaphore>,
    tries: Arc<Mutex<Tries>>,
}

/// How it went so far.
#[derive(Debug, Default)]
struct Tries {
    /// Wrong passphrases in a row, whoever gave them.
    failures: u32,
    next_at: Option<Instant>,
}

/// The right to derive a key; kept until that is done, even when nobody waits for it any more.
struct Turn {
    _place: OwnedSemaphorePermit,
    tries: OwnedMutexGuard<Tries>,
}

impl Default for Keyhole {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(1 + MAX_WAITING)), tries: Arc::default() }
    }
}

impl Keyhole {
    /// Opens a private key.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::WRONG_PASSPHRASE`] for a wrong one, [`ErrorCode::BUSY`] when too many wait.
    pub async fn open(&self, sealed: SealedPrivate, passphrase: Secret) -> Result<Private, Problem> {
        let mut turn = self.turn().await?;
        let opened = blocking_secret(move || {
            let opened = sealed.open(passphrase.expose());
            turn.tries.note(opened.is_ok());
            opened
        });
        opened.await?.map_err(problem)
    }

    /// Seals a private key behind a passphrase.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::BUSY`] when too many wait.
    pub async fn seal(&self, private: Private, passphrase: Secret) -> Result<SealedPrivate, Problem> {
        let turn = self.turn().await?;
        let sealed = blocking_secret(move || {
            let _until_done = turn;
            private.seal_with(passphrase.expose())
        });
        sealed.await?.map_err(problem)
    }

    async fn turn(&self) -> Result<Turn, Problem> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_full| busy())?;
        let tries = Arc::clone(&self.tries).lock_owned().await;
        if let Some(at) = tries.next_at {
            sleep_until(at).await;
        }
        Ok(Turn { _place: place, tries })
    }
}

impl Tries {
    fn note(&mut self, ok: bool) {
        self.failures = if ok { 0 } else { self.failures.saturating_add(1) };
        self.next_at = (!ok).then(|| Instant::now() + pause_after(self.failures));
        if !ok {
            warn!(failures = self.failures, "a wrong passphrase was given");
        }
    }
}

/// Returns what is told to those who give a passphrase that does not open the lock.
pub fn wrong_passphrase(message: &str) -> Problem {
    Problem::new(
        ErrorCode::WRONG_PASSPHRASE,
        message,
        "try again; with a lost one: stop the agent, move lock.json in its state folder away, start it, set another \
         passphrase, and add the keys anew, sealed ones too, since only the lost one opens them",
    )
}

fn problem(error: SealError) -> Problem {
    match error {
        SealError::Closed => wrong_passphrase("the passphrase is wrong"),
        SealError::Parameters | SealError::System => Problem::new(
            ErrorCode::FAILED,
            format!("cannot derive a key from the passphrase: {error}"),
            "it takes 64 MiB of memory: look at the system's limits",
        ),
    }
}

fn busy() -> Problem {
    Problem::new(ErrorCode::BUSY, "too many passphrases are being tried", "wait a moment, then try again")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_passphrase_delays_the_next_answer_and_a_right_one_ends_that() {
        let keyhole = Keyhole::default();
        let sealed = keyhole.seal(Private::generate().unwrap(), secret("right")).await.unwrap();
        for pause in [0, 250, 500].map(Duration::from_millis) {
            let begin = Instant::now();
            let problem = keyhole.open(sealed.clone(), secret("wrong")).await.unwrap_err();
            assert_eq!(problem.code, ErrorCode::WRONG_PASSPHRASE);
            assert!(begin.elapsed() >= pause, "{:?}", begin.elapsed());
        }
        keyhole.open(sealed.clone(), secret("right")).await.unwrap();
        assert!(keyhole.tries.lock().await.next_at.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_find_too_many_waiting_are_turned_away() {
        let keyhole = Keyhole::default();
        let _tried = keyhole.turn().await.unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(keyhole.turn())).collect();
        for turn in &mut waiting {
            assert!(tokio::time::timeout(Duration::from_secs(1), turn).await.is_err());
        }
        assert_eq!(keyhole.turn().await.err().unwrap().code, ErrorCode::BUSY);
        waiting.pop();
        assert!(tokio::time::timeout(Duration::from_secs(1), keyhole.turn()).await.is_err(), "it waits");
    }
}
