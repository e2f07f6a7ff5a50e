//! The one question that is on the screen, and who comes next: the agent's own user before its guests.

use tokio::sync::{Mutex, MutexGuard, watch};

/// Where questions are shown, one at a time.
#[derive(Debug, Default)]
pub struct Screen {
    shown: Mutex<()>,
    /// Held by the guest's question that comes next.
    next_guest: Mutex<()>,
    /// Questions of the agent's own user that wait for the screen.
    own_waiting: watch::Sender<usize>,
}

/// The right to show a question, until it is dropped.
#[derive(Debug)]
pub struct Turn<'a> {
    _shown: MutexGuard<'a, ()>,
}

/// Counts as waiting until it is dropped.
struct Queued<'a>(&'a watch::Sender<usize>);

impl<'a> Queued<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|count| *count += 1);
        Self(waiting)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Screen {
    /// Waits until a question may be shown. What is on the screen stays there: a question that took another one's
    /// place while the user aims at a button would be answered by mistake.
    ///
    /// # Cancel safety
    ///
    /// One that is dropped has not waited.
    pub async fn turn(&self, is_own: bool) -> Turn<'_> {
        if is_own {
            let _queued = Queued::new(&self.own_waiting);
            return Turn { _shown: self.shown.lock().await };
        }
        let _next = self.next_guest.lock().await;
        loop {
            // The sender lives as long as this.
            let _closed = self.own_waiting.subscribe().wait_for(|count| *count == 0).await.is_err();
            let turn = Turn { _shown: self.shown.lock().await };
            if *self.own_waiting.borrow() == 0 {
                return turn;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::mpsc;
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn the_own_users_questions_come_before_those_of_guests_that_wait_longer() {
        let (screen, (said, mut order)) = (Arc::new(Screen::default()), mpsc::unbounded_channel());
        let shown = screen.turn(false).await;
        for (name, is_own) in [("guest", false), ("another guest", false), ("own", true), ("own too", true)] {
            let (screen, said) = (Arc::clone(&screen), said.clone());
            tokio::spawn(async move {
                let _turn = screen.turn(is_own).await;
                said.send(name).unwrap();
            });
            yield_now().await;
        }
        drop((shown, said));
        let mut seen = Vec::new();
        while let Some(name) = order.recv().await {
            seen.push(name);
        }
        assert_eq!(seen, ["own", "own too", "guest", "another guest"]);
    }

    #[tokio::test]
    async fn a_question_that_was_withdrawn_holds_up_nobody() {
        let screen = Screen::default();
        let shown = screen.turn(false).await;
        tokio::select! {
            biased;
            _turn = screen.turn(true) => unreachable!("the screen is taken"),
            () = yield_now() => {}
        }
        drop(shown);
        screen.turn(false).await;
    }
}
