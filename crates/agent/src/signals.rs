//! What the operating system wants of the agent.

use std::io;

/// A wish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Read the configuration anew.
    Reload,
    /// Drop all secrets.
    DropAll,
    /// End, having answered who waits.
    Stop,
}

pub use system::Signals;

impl Signals {
    /// Waits until the agent is to end.
    pub async fn stop(&mut self) {
        while self.next().await != Wish::Stop {}
    }
}

#[cfg(unix)]
mod system {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
    use tokio_stream::StreamExt as _;

    use super::{Wish, io};

    /// The signals that came since it was made.
    pub struct Signals(signal_hook_tokio::Signals);

    impl std::fmt::Debug for Signals {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Signals")
        }
    }

    impl Signals {
        /// Takes over SIGHUP, SIGUSR1, SIGTERM and SIGINT.
        ///
        /// # Errors
        ///
        /// When the system refuses.
        pub fn listen() -> io::Result<Self> {
            signal_hook_tokio::Signals::new([SIGHUP, SIGUSR1, SIGTERM, SIGINT]).map(Self)
        }

        /// Waits for the next wish.
        pub async fn next(&mut self) -> Wish {
            match self.0.next().await {
                Some(SIGHUP) => Wish::Reload,
                Some(SIGUSR1) => Wish::DropAll,
                _ => Wish::Stop,
            }
        }
    }
}

#[cfg(windows)]
mod system {
    use tokio::signal::windows::{CtrlBreak, CtrlC, CtrlClose, ctrl_break, ctrl_c, ctrl_close};

    use super::{Wish, io};

    /// The console events that came since it was made.
    #[derive(Debug)]
    pub struct Signals(CtrlC, CtrlBreak, CtrlClose);

    impl Signals {
        /// Takes over Ctrl+C, Ctrl+Break and the closing of the console.
        ///
        /// # Errors
        ///
        /// When the system refuses.
        pub fn listen() -> io::Result<Self> {
            Ok(Self(ctrl_c()?, ctrl_break()?, ctrl_close()?))
        }

        /// Waits for the next wish.
        pub async fn next(&mut self) -> Wish {
            tokio::select! {
                _ = self.0.recv() => {}
                _ = self.1.recv() => {}
                _ = self.2.recv() => {}
            }
            Wish::Stop
        }
    }
}
