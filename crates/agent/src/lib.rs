//! The agent: holds API keys, buys bearer tokens with them, refreshes those and hands them out.
//!
//! [`Agent::start`] and [`Agent::run`] are its whole life. What they use: [`server`] accepts and
//! [`session`] speaks with one client; [`authorize`] permits and [`handle`] carries out; [`vault`]
//! owns every secret, decides by [`freshness`] and buys by [`exchange`].

pub mod authorize;
pub mod binding;
pub mod clock;
pub mod config;
pub mod error;
pub mod exchange;
pub mod freshness;
pub mod handle;
pub mod harden;
pub mod key_source;
pub mod log;
#[cfg(target_os = "linux")]
pub mod notify;
pub mod only_one;
pub mod paths;
pub mod private_file;
pub mod proxies;
pub mod refresh;
pub mod server;
pub mod session;
pub mod sessions;
pub mod signals;
pub mod start;
pub mod vault;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use dph_agent_ipc::{BindError, Endpoint, EndpointError, Listener, Uid, own_uid, place, prepare_folder};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use binding::Bindings;
use clock::{Clock, SystemClock};
use config::{Config, ConfigError, ConfigFile};
use error::Chain;
use handle::{Desk, VERSION};
use only_one::{OnlyOne, OnlyOneError};
use paths::Paths;
use signals::{Signals, Wish};
use vault::{Surroundings, VaultHandle};

/// Pause between two looks at whether an agent that is ending has gone.
const HANDOVER_PAUSE: Duration = Duration::from_millis(20);

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
    signals: Signals,
    /// Absent where the socket was named, or came from a supervisor, which sees to it.
    _only_one: Option<OnlyOne>,
}

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no place to listen.
    #[error("cannot find a place to listen")]
    Endpoint(#[from] EndpointError),
    /// It cannot listen there.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Another agent runs.
    #[error(transparent)]
    OnlyOne(#[from] OnlyOneError),
    /// The system refuses something.
    #[error("cannot {what}")]
    System {
        /// What it refuses.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl StartError {
    /// Returns the socket of the agent that is in the way, if one is.
    fn held_elsewhere(&self) -> Option<&Path> {
        match self {
            Self::OnlyOne(OnlyOneError::Held { wanted, .. }) => Some(wanted.path()),
            Self::Bind(BindError::InUse { endpoint, .. }) => Some(endpoint.path()),
            Self::Config(_) | Self::Endpoint(_) | Self::Bind(_) | Self::OnlyOne(_) | Self::System { .. } => {
                None
            }
        }
    }
}

impl Agent {
    /// Reads the configuration, takes its place and starts to listen.
    ///
    /// # Errors
    ///
    /// When one of these cannot be done; nothing is left behind then.
    pub async fn start(options: Options, paths: Paths) -> Result<Self, StartError> {
        let signals = Signals::listen().map_err(system("listen for signals"))?;
        let own = own_uid().map_err(system("tell which user this is"))?;
        let mut file = ConfigFile::new(paths.config.clone());
        let config = file.load()?;
        let (listener, only_one) = listen_patiently(&options, &paths, &config).await?;
        let endpoint = listener.endpoint().to_string();
        let desk = Arc::new(desk(file, config, &paths, endpoint)?);
        info!(version = VERSION, pid = std::process::id(), socket = desk.endpoint, "ready");
        Ok(Self { listener, own, desk, signals, _only_one: only_one })
    }

    /// Serves until somebody wants it to stop.
    pub async fn run(self) {
        let Self { listener, own, desk, mut signals, _only_one } = self;
        let server = tokio::spawn(server::serve(listener, own, Arc::clone(&desk)));
        supervisor::ready();
        loop {
            tokio::select! {
                wish = signals.next() => match wish {
                    Wish::Reload => reload(&desk).await,
                    Wish::Stop => desk.stop.cancel(),
                },
                () = desk.stop.cancelled() => break,
            }
        }
        supervisor::stopping();
        if let Err(error) = server.await {
            error!(%error, "the server ended unexpectedly");
        }
        info!("stopped");
    }
}

/// Listens as soon as an agent that is just ending has gone: its socket goes before it does.
async fn listen_patiently(
    options: &Options,
    paths: &Paths,
    config: &Config,
) -> Result<(Listener, Option<OnlyOne>), StartError> {
    let end = Instant::now() + sessions::DRAIN_TIMEOUT + Duration::from_secs(1);
    loop {
        match listen(options.socket.clone(), paths, config).await {
            Err(error)
                if error.held_elsewhere().is_some_and(|socket| !socket.exists()) && Instant::now() < end =>
            {
                sleep(HANDOVER_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Returns a listener: the one named, the one a supervisor handed over, or the user's own.
async fn listen(
    named: Option<PathBuf>,
    paths: &Paths,
    config: &Config,
) -> Result<(Listener, Option<OnlyOne>), StartError> {
    if let Some(path) = named {
        let endpoint = Endpoint::new(path)?;
        prepare_folder(&endpoint)?;
        let listener = Listener::bind(&endpoint).await?;
        open_to_guests(&endpoint, config)?;
        return Ok((listener, None));
    }
    #[cfg(target_os = "linux")]
    if let Some(socket) = notify::activated_socket() {
        let listener = Listener::from_fd(socket).map_err(system("use the socket from systemd"))?;
        return Ok((listener, None));
    }
    let endpoint = place(&dph_agent_ipc::Surroundings::from_env())?;
    let only_one = OnlyOne::become_it(&paths.lock(), &endpoint)?;
    Ok((Listener::bind(&endpoint).await?, Some(only_one)))
}

/// Lets users of `allow-uid` reach a socket that was named for them; who they are is checked all the same.
#[cfg(unix)]
fn open_to_guests(endpoint: &Endpoint, config: &Config) -> Result<(), StartError> {
    use std::os::unix::fs::PermissionsExt as _;
    if config.allow_uid.is_empty() {
        return Ok(());
    }
    let mode = std::fs::Permissions::from_mode(0o666);
    std::fs::set_permissions(endpoint.path(), mode)
        .map_err(system("open the socket to the users of allow-uid"))
}

#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "the same signature as on Unix")]
fn open_to_guests(_endpoint: &Endpoint, _config: &Config) -> Result<(), StartError> {
    Ok(())
}

fn desk(file: ConfigFile, config: Config, paths: &Paths, endpoint: String) -> Result<Desk, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let started_at = clock.wall();
    let bindings = Arc::new(Bindings::new(paths.bindings()));
    let surroundings = Surroundings { clock, bindings, proxies: proxies::from_env() };
    let vault = VaultHandle::start(Arc::new(config), surroundings.clone()).map_err(system("set a timer"))?;
    Ok(Desk {
        vault,
        surroundings,
        config: Mutex::new(file),
        config_error: std::sync::Mutex::default(),
        endpoint,
        started_at,
        stop: CancellationToken::new(),
    })
}

/// Reads the configuration anew; a bad one changes nothing but what `status` says.
async fn reload(desk: &Desk) {
    supervisor::reloading();
    let mut file = desk.config.lock().await;
    let problem = match file.load() {
        Ok(config) => {
            desk.vault.apply(Arc::new(config), vault::Why::Reload).await.err().map(|problem| problem.message)
        }
        Err(error) => Some(Chain(&error).to_string()),
    };
    match &problem {
        None => info!("read the configuration"),
        Some(problem) => error!(problem, "the configuration is wrong: the one before stays in force"),
    }
    *desk.config_error.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    supervisor::ready();
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
