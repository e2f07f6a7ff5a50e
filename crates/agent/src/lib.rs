//! The agent: holds API keys, buys bearer tokens with them, refreshes those and hands them out.
//!
//! [`Agent::start`] and [`Agent::run`] are its whole life. What they use: [`server`] accepts and
//! [`session`] speaks with one client; [`authorize`] permits and [`handle`] carries out, what changes something as one of the [`errands`]; [`vault`]
//! owns every secret, decides by [`freshness`] and buys by [`exchange`]; [`audit`] records it all.

pub mod askpass;
pub mod audit;
pub mod authorize;
pub mod binding;
pub mod caller;
pub mod clock;
pub mod config;
pub mod errands;
pub mod error;
pub mod exchange;
pub mod freshness;
pub mod handle;
pub mod harden;
mod keeper;
pub mod kept_key;
pub mod key_change;
pub mod key_end;
pub mod key_source;
pub mod keyhole;
mod listening;
pub mod lock;
pub mod log;
pub mod logind;
#[cfg(target_os = "linux")]
pub mod notify;
pub mod only_one;
mod own_session;
pub mod paths;
pub mod pending;
pub mod policy;
pub mod private_file;
pub mod proxies;
pub mod refresh;
pub mod refusals;
pub mod screen;
pub mod seal;
pub mod server;
pub mod session;
pub mod sessions;
pub mod signals;
pub mod start;
mod start_error;
pub mod vault;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use dph_agent_ipc::{Listener, Uid, own_uid};
use dph_agent_secret::Pool;
use tokio::sync::{Mutex, Notify};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use audit::{Audit, account};
use binding::Bindings;
use clock::{Clock, SystemClock};
use config::{Config, ConfigFile, Loosened, loosened};
use errands::Errands;
use error::Problem;
use exchange::blocking;
use handle::{Desk, VERSION};
use key_change::{Journal, KeyChanges, schedule};
use key_source::SealedFolder;
use keyhole::Keyhole;
use listening::take_place;
use lock::RecordFile;
use only_one::OnlyOne;
use paths::Paths;
use pending::Pending;
use screen::Screen;
use signals::{Signals, Wish};
use vault::{Surroundings, VaultHandle};

pub use start_error::StartError;

/// What the command line says about how to run.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Listen there and nowhere else.
    pub socket: Option<PathBuf>,
}

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    listener: Listener,
    own: Uid,
    desk: Arc<Desk>,
    vault: JoinHandle<()>,
    signals: Signals,
    /// Absent where the socket was named.
    _only_one: Option<OnlyOne>,
}

/// A part of the agent ended, which it cannot do without.
#[derive(Debug, thiserror::Error)]
#[error("the {part} ended unexpectedly")]
pub struct Ended {
    part: &'static str,
    source: Option<JoinError>,
}

impl Agent {
    /// Reads the configuration, takes its place and starts to listen.
    ///
    /// # Errors
    ///
    /// When one of these cannot be done; nothing is left behind then.
    pub async fn start(options: Options, paths: Paths) -> Result<Self, StartError> {
        let mut signals = Signals::listen().map_err(system("listen for signals"))?;
        let own = own_uid().map_err(system("tell which user this is"))?;
        let mut file = ConfigFile::of(&paths);
        let config = file.load()?;
        let (listener, only_one) = tokio::select! {
            place = take_place(&options, &paths) => place?,
            () = signals.stop() => return Err(StartError::Stopped),
        };
        let endpoint = listener.endpoint().to_string();
        let (desk, vault) = furnish(file, config, &paths, endpoint, Uid::clone(&own))?;
        desk.changes.resume().await;
        info!(version = VERSION, pid = std::process::id(), socket = desk.endpoint, "ready");
        Ok(Self { listener, own, desk: Arc::new(desk), vault, signals, _only_one: only_one })
    }

    /// Serves until somebody wants it to stop.
    ///
    /// # Errors
    ///
    /// When a part of it ended before.
    pub async fn run(self) -> Result<(), Ended> {
        let Self { listener, own, desk, mut vault, mut signals, _only_one } = self;
        let (hang_up, reloaded) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let server = tokio::spawn(server::serve(listener, own, Arc::clone(&desk), Arc::clone(&reloaded)));
        let reloads = tokio::spawn(reload_whenever(Arc::clone(&hang_up), Arc::clone(&desk), reloaded));
        let noticing = tokio::spawn(logind::obey(Arc::clone(&desk)));
        let forgetting = tokio::spawn(Arc::clone(&desk.changes).forget_when_locked());
        let rotating = tokio::spawn(schedule::rotate_when_due(Arc::clone(&desk.changes), desk.vault.clone()));
        supervisor::ready();
        let outcome = loop {
            tokio::select! {
                biased; // once the agent is to stop, the vault may end, too
                () = desk.stop.cancelled() => break Ok(()),
                ended = &mut vault => break Err(Ended { part: "vault", source: ended.err() }),
                wish = signals.next() => match wish {
                    Wish::Reload => hang_up.notify_one(),
                    // A vault that has ended holds nothing; the loop sees that it has.
                    Wish::DropAll => drop(desk.vault.drop_all().await),
                    Wish::Stop => desk.stop.cancel(),
                },
            }
        };
        supervisor::stopping();
        desk.stop.cancel();
        reloads.abort();
        noticing.abort();
        rotating.abort();
        forgetting.abort();
        let drained = server.await.map_err(|error| Ended { part: "server", source: Some(error) });
        tokio::join!(desk.errands.finish(), desk.changes.settle());
        desk.surroundings.audit.finish(desk.surroundings.clock.wall());
        info!("stopped");
        outcome.and(drained)
    }
}

/// Returns what requests are carried out with, and the vault's task.
fn furnish(
    file: ConfigFile,
    config: Config,
    paths: &Paths,
    endpoint: String,
    own: Uid,
) -> Result<(Desk, JoinHandle<()>), StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let started_at = clock.wall();
    let bindings = Arc::new(Bindings::new(paths.bindings()));
    let pool = Pool::new(config.secret_memory).map_err(StartError::Memory)?;
    if !pool.is_locked() {
        warn!("limits forbid locking memory: encrypted keys may be swapped out");
    }
    let sealed = SealedFolder::new(paths.sealed());
    let audit = Audit::start(paths.audit(), config.audit, started_at).map_err(system("start a thread"))?;
    let surroundings = Surroundings { clock, pool, bindings, sealed, audit, proxies: proxies::from_env() };
    let (vault, task) =
        VaultHandle::start(Arc::new(config), RecordFile::new(paths.lock_record()), surroundings.clone())
            .map_err(system("set a timer"))?;
    let journal = Journal::new(paths.changes());
    let stop = CancellationToken::new();
    let changes = Arc::new(KeyChanges::new(vault.clone(), surroundings.clone(), journal, stop.clone()));
    let desk = Desk {
        vault,
        changes,
        keyhole: Keyhole::default(),
        surroundings,
        config: Mutex::new(file),
        config_error: std::sync::Mutex::default(),
        lock_on_error: std::sync::Mutex::default(),
        endpoint,
        started_at,
        stop,
        pending: Pending::new(own),
        screen: Screen::default(),
        has_display: askpass::has_display(),
        errands: Errands::default(),
    };
    Ok((desk, task))
}

/// Reloads apart from the loop that hears what is wanted, for it may take a while; what is wanted
/// meanwhile is one reload more.
async fn reload_whenever(wanted: Arc<Notify>, desk: Arc<Desk>, reloaded: Arc<Notify>) {
    loop {
        wanted.notified().await;
        supervisor::reloading();
        reload(&desk).await;
        reloaded.notify_one();
        supervisor::ready();
    }
}

/// Reads the configuration anew; a bad one changes nothing but what `status` says.
async fn reload(desk: &Desk) {
    let problem = read_config(desk).await.err().map(|problem| problem.message);
    match &problem {
        None => info!("read the configuration"),
        Some(problem) => error!(problem, "the configuration is wrong: the one before stays in force"),
    }
    *desk.config_error.lock().unwrap_or_else(PoisonError::into_inner) = problem;
}

async fn read_config(desk: &Desk) -> Result<(), Problem> {
    let mut file = desk.config.lock().await;
    let mut anew = file.clone();
    let (anew, config) = blocking(move || {
        let config = anew.load();
        (anew, config)
    })
    .await?;
    let config = config?;
    *file = anew;
    tell_loosened(loosened(&desk.vault.in_force().borrow(), &config), desk);
    desk.vault.apply(Arc::new(config), vault::Why::Reload).await
}

/// Before it is in force: where it switches the audit log off, that is still written.
fn tell_loosened(loosened: Vec<Loosened>, desk: &Desk) {
    for Loosened { profile, weaker } in &loosened {
        let (profile, weaker) = (profile.as_ref().map(tracing::field::display), weaker.join(", "));
        warn!(profile, weaker, "the configuration protects less than before");
    }
    account::loosened(loosened, &desk.surroundings);
}

fn system(what: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::System { what, source }
}

#[cfg(target_os = "linux")]
use notify as supervisor;

/// Elsewhere nobody waits to be told.
#[cfg(not(target_os = "linux"))]
mod supervisor {
    pub(crate) fn ready() {}
    pub(crate) fn reloading() {}
    pub(crate) fn stopping() {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_agent_whose_vault_has_gone_ends_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths {
            config: folder.path().join("config.toml"),
            state: folder.path().to_owned(),
            data: folder.path().to_owned(),
            named: false,
        };
        let options = Options { socket: Some(folder.path().join("socket/agent.sock")) };
        let agent = Agent::start(options, paths).await.unwrap();
        agent.vault.abort();
        let ended = agent.run().await.unwrap_err();
        assert_eq!(ended.to_string(), "the vault ended unexpectedly");
        assert!(!folder.path().join("socket/agent.sock").exists(), "nobody is led to a dead agent");
    }
}
