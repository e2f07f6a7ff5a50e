//! logind, on the system bus.
//!
//! Any user can send a signal to the agent alone, past the bus's match rules. So each one is compared with
//! the connection that owns logind's name, which the bus gives to root only.

use std::collections::HashMap;
use std::time::Duration;

use dph_agent_ipc::own_uid;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::{StreamExt as _, StreamMap};
use tracing::{debug, error};
use zbus::zvariant::{DynamicType, OwnedFd, OwnedObjectPath, OwnedValue, Value};
use zbus::{Connection, Message, MessageStream, connection};

use super::{Ended, Report, changed};
use crate::lock::{Cause, LockOn};
use crate::vault::VaultHandle;

/// How long the bus or logind may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the machine's sleep is held up at most; logind itself waits for 5 s as it is delivered.
const LONGEST_DELAY: Duration = Duration::from_secs(4);
/// Signals of a kind that wait; a peer that sends more of them holds up itself and the agent's bus alone.
const QUEUE: usize = 16;

const BUS: &str = "org.freedesktop.DBus";
const LOGIND: &str = "org.freedesktop.login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const MANAGER_PATH: &str = "/org/freedesktop/login1";
const SESSION: &str = "org.freedesktop.login1.Session";
const SESSIONS_PATH: &str = "/org/freedesktop/login1/session";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// Why the agent would not notice what is to lock it.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    /// There is no bus.
    #[error("the system bus cannot be reached: {0}")]
    NoBus(zbus::Error),
    /// It took too long.
    #[error("the system bus did not answer within {} s", PATIENCE.as_secs())]
    Silent,
    /// The bus is there, logind is not.
    #[error("logind is not on the system bus")]
    Absent,
    /// The bus or logind does not do what was asked.
    #[error("cannot listen to logind: {0}")]
    Refused(#[from] zbus::Error),
    /// The bus has gone.
    #[error("the connection to the system bus was lost")]
    Lost,
}

impl LogindError {
    /// Whether trying again is in vain.
    pub fn is_final(&self) -> bool {
        false
    }
}

/// Makes sure that logind is there.
///
/// # Errors
///
/// Why it could not be heard.
pub async fn probe(on: LockOn) -> Result<(), LogindError> {
    let logind = Box::pin(Logind::connect(on)).await?;
    if logind.owner.is_some() { Ok(()) } else { Err(LogindError::Absent) }
}

/// Locks when logind says so, until it cannot be heard or something else is wanted.
pub(super) async fn listen(
    on: LockOn,
    wanted: &mut watch::Receiver<LockOn>,
    report: &mut Report<'_>,
) -> Ended {
    match hear(on, wanted, report).await {
        Ok(never) => match never {},
        Err(ended) => ended,
    }
}

async fn hear(
    on: LockOn,
    wanted: &mut watch::Receiver<LockOn>,
    report: &mut Report<'_>,
) -> Result<std::convert::Infallible, Ended> {
    let mut logind = tokio::select! {
        logind = Logind::connect(on) => logind?,
        () = changed(wanted) => return Err(Ended::Changed),
    };
    let mut news = News::Owner(logind.owner.take());
    loop {
        // What has begun is finished before anything else is looked at: a lock is recorded.
        logind.carry_out(news, report).await?;
        news = tokio::select! {
            news = logind.news() => news?,
            () = changed(wanted) => return Err(Ended::Changed),
        };
    }
}

/// What the bus or logind tells.
#[derive(Debug, PartialEq)]
enum News {
    /// logind's name belongs to this connection, or to nobody.
    Owner(Option<String>),
    /// The machine goes to sleep.
    Sleeps,
    /// It is awake.
    Wakes,
    /// This session was locked.
    Locked(String),
}

struct Logind {
    on: LockOn,
    bus: Connection,
    signals: StreamMap<usize, MessageStream>,
    /// The connection that is logind.
    owner: Option<String>,
    /// Holds up the machine's sleep for as long as it is open.
    inhibitor: Option<OwnedFd>,
}

impl Logind {
    async fn connect(on: LockOn) -> Result<Self, LogindError> {
        let connecting = async {
            let builder = connection::Builder::system().map_err(LogindError::NoBus)?;
            let bus = builder.method_timeout(PATIENCE).build().await.map_err(LogindError::NoBus)?;
            let mut signals = StreamMap::new();
            for (number, rule) in rules(on).into_iter().enumerate() {
                let stream = MessageStream::for_match_rule(rule.as_str(), &bus, Some(QUEUE)).await?;
                signals.insert(number, stream);
            }
            let owner = owner(&bus).await?;
            Ok(Self { on, bus, signals, owner, inhibitor: None })
        };
        timeout(PATIENCE, connecting).await.unwrap_or(Err(LogindError::Silent))
    }

    /// Waits for the next news.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when it is dropped.
    async fn news(&mut self) -> Result<News, LogindError> {
        loop {
            let Some((_, Ok(message))) = self.signals.next().await else { return Err(LogindError::Lost) };
            if let Some(news) = read(&message, self.owner.as_deref()) {
                return Ok(news);
            }
        }
    }

    async fn carry_out(&mut self, news: News, report: &mut Report<'_>) -> Result<(), LogindError> {
        let vault = &report.desk.vault;
        match news {
            News::Owner(None) => {
                (self.owner, self.inhibitor) = (None, None);
                report.trouble(&LogindError::Absent);
            }
            News::Owner(owner) => {
                self.owner = owner;
                self.catch_up(vault).await?;
                self.hold_up_sleep().await?;
                report.works();
            }
            News::Sleeps => {
                lock(vault, Cause::Suspend).await;
                self.inhibitor = None;
            }
            News::Wakes => self.hold_up_sleep().await?,
            News::Locked(session) if self.is_ours(&session).await => lock(vault, Cause::ScreenLock).await,
            News::Locked(session) => debug!(session, "the locked screen is another user's"),
        }
        Ok(())
    }

    /// Locks for what happened while nobody listened.
    async fn catch_up(&self, vault: &VaultHandle) -> Result<(), LogindError> {
        if self.on.suspend && self.property::<bool>(MANAGER_PATH, MANAGER, "PreparingForSleep").await? {
            lock(vault, Cause::Suspend).await;
        }
        if self.on.screen_lock {
            for session in self.own_sessions().await? {
                // One that has ended meanwhile is no matter.
                if self.property::<bool>(&session, SESSION, "LockedHint").await.is_ok_and(|locked| locked) {
                    lock(vault, Cause::ScreenLock).await;
                }
            }
        }
        Ok(())
    }

    async fn hold_up_sleep(&mut self) -> Result<(), LogindError> {
        if self.on.suspend {
            let how = ("sleep", "dph-agent", "lock the keys", "delay");
            let granted = self.ask(MANAGER_PATH, MANAGER, "Inhibit", &how).await?;
            self.inhibitor = Some(granted.body().deserialize()?);
        }
        Ok(())
    }

    async fn own_sessions(&self) -> Result<Vec<String>, LogindError> {
        type Session = (String, u32, String, String, OwnedObjectPath);
        let sessions = self.ask(MANAGER_PATH, MANAGER, "ListSessions", &()).await?;
        let sessions: Vec<Session> = sessions.body().deserialize()?;
        let own = sessions.into_iter().filter(|(_, uid, ..)| own_uid().is_ok_and(|own| own == *uid));
        Ok(own.map(|(.., path)| path.as_str().to_owned()).collect())
    }

    /// Whether a session is of the agent's user, or cannot be told not to be.
    async fn is_ours(&self, session: &str) -> bool {
        match self.property::<(u32, OwnedObjectPath)>(session, SESSION, "User").await {
            Ok((uid, _)) => own_uid().is_ok_and(|own| own == uid),
            Err(error) => {
                debug!(session, %error, "cannot tell whose session this is");
                true
            }
        }
    }

    async fn property<T: TryFrom<OwnedValue>>(
        &self,
        path: &str,
        interface: &str,
        name: &str,
    ) -> Result<T, LogindError>
    where
        zbus::zvariant::Error: From<T::Error>,
    {
        let value = self.ask(path, PROPERTIES, "Get", &(interface, name)).await?;
        let value: OwnedValue = value.body().deserialize()?;
        T::try_from(value).map_err(|error| zbus::Error::Variant(error.into()).into())
    }

    /// Asks the one that is logind now, not one that takes its name meanwhile.
    async fn ask<B: serde::Serialize + DynamicType>(
        &self,
        path: &str,
        interface: &str,
        method: &str,
        body: &B,
    ) -> Result<Message, LogindError> {
        let owner = self.owner.as_deref().ok_or(LogindError::Absent)?;
        Ok(self.bus.call_method(Some(owner), path, Some(interface), method, body).await?)
    }
}

/// Returns the signals to hear.
fn rules(on: LockOn) -> Vec<String> {
    let mut rules = vec![format!(
        "type='signal',sender='{BUS}',interface='{BUS}',member='NameOwnerChanged',arg0='{LOGIND}'"
    )];
    let logind = format!("type='signal',sender='{LOGIND}'");
    if on.suspend {
        rules.push(format!("{logind},interface='{MANAGER}',member='PrepareForSleep',path='{MANAGER_PATH}'"));
    }
    if on.screen_lock {
        let sessions = format!("{logind},path_namespace='{SESSIONS_PATH}'");
        rules.push(format!("{sessions},interface='{SESSION}',member='Lock'"));
        rules
            .push(format!("{sessions},interface='{PROPERTIES}',member='PropertiesChanged',arg0='{SESSION}'"));
    }
    rules
}

/// Returns which connection is logind.
async fn owner(bus: &Connection) -> Result<Option<String>, LogindError> {
    let asked = bus.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "GetNameOwner", &LOGIND);
    match asked.await {
        Ok(owner) => Ok(Some(owner.body().deserialize()?)),
        Err(zbus::Error::MethodError(name, ..)) if name.as_str().ends_with(".NameHasNoOwner") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns what a signal tells, where it comes from whom it should.
fn read(message: &Message, logind: Option<&str>) -> Option<News> {
    let (header, body) = (message.header(), message.body());
    let sender = header.sender()?.as_str();
    let (interface, member) = (header.interface()?.as_str(), header.member()?.as_str());
    let path = header.path()?.as_str();
    if (sender, interface, member) == (BUS, BUS, "NameOwnerChanged") {
        let (name, _, owner): (&str, &str, &str) = body.deserialize().ok()?;
        let owner = Some(owner).filter(|owner| !owner.is_empty()).map(str::to_owned);
        return (name == LOGIND).then_some(News::Owner(owner));
    }
    if logind != Some(sender) {
        debug!(sender, member, "not from logind");
        return None;
    }
    match (interface, member) {
        (MANAGER, "PrepareForSleep") => {
            let begins: bool = body.deserialize().ok()?;
            Some(if begins { News::Sleeps } else { News::Wakes })
        }
        (SESSION, "Lock") => Some(News::Locked(session(path)?)),
        (PROPERTIES, "PropertiesChanged") => {
            let (of, changed, _): (&str, HashMap<&str, Value<'_>>, Vec<&str>) = body.deserialize().ok()?;
            let is_locked = of == SESSION && changed.get("LockedHint") == Some(&Value::Bool(true));
            if is_locked { Some(News::Locked(session(path)?)) } else { None }
        }
        _ => None,
    }
}

fn session(path: &str) -> Option<String> {
    path.strip_prefix(SESSIONS_PATH)?.starts_with('/').then(|| path.to_owned())
}

/// Locks, and returns when that is recorded or nobody should wait for it any longer.
async fn lock(vault: &VaultHandle, cause: Cause) {
    match timeout(LONGEST_DELAY, vault.lock_by_itself(cause)).await {
        Ok(Ok(())) => {}
        Ok(Err(problem)) => error!(problem = problem.message, "the lock was not recorded"),
        Err(_elapsed) => error!("the lock is not recorded yet, and the machine is held up no longer"),
    }
}
