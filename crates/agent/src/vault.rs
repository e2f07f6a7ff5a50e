//! The one task that owns secrets; [`VaultHandle`] is how others ask it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use dph_agent_platform::ProxyEnv;
use dph_agent_protocol::{
    ErrorCode, KeyState, LastError, Listing, PAGE_LEN, ProfileStatus, Selector, TokenState,
};
use dph_agent_secret::Pool;
use dph_agent_secret::wiped_stack::Wiping;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinHandle, JoinSet};
use tracing::{debug, error, info, warn};

use crate::binding::{Binding, Bindings};
use crate::clock::{Alarm, Clock, Ring, Steady};
use crate::config::{Config, Profile, ProfileName};
use crate::error::Problem;
use crate::exchange::{Attempt, Finished};
use crate::freshness::{Answer, Bought, Dice, Effect, Freshness, Mode, Need, Outcome};
use crate::keeper::{Held, Keeper};
use crate::kept_key::KeptKey;
use crate::lock::{Event, RecordFile, locked};
use crate::seal::{Private, SealedPrivate};

/// Requests that wait for the vault before callers are held up.
const QUEUE: usize = 64;

/// A key that is held, with what it was given for.
#[derive(Clone, Debug)]
pub struct HeldKey {
    /// The key.
    pub key: Arc<KeptKey>,
    /// Whom it may be sent to.
    pub binding: Binding,
    /// When it was handed over or first read, in seconds since 1970.
    pub added_at: i64,
}

/// A token as a caller gets it, with the profile it belongs to.
pub type TokenAnswer = (Arc<Profile>, Answer);

/// Reaches the vault.
#[derive(Clone, Debug)]
pub struct VaultHandle {
    commands: mpsc::Sender<Command>,
    locked: watch::Receiver<bool>,
}

type Reply<T> = oneshot::Sender<T>;

#[derive(Debug)]
enum Command {
    Token(Selector, Need, Reply<Result<(Arc<Profile>, Waiter), Problem>>),
    Retry(Selector, Reply<Result<(Arc<Profile>, Waiter), Problem>>),
    Ready(Selector, Reply<Result<(), Problem>>),
    Select(Selector, Reply<Result<Arc<Profile>, Problem>>),
    List(String, Reply<Result<Listing, Problem>>),
    Status(Selector, String, Reply<Result<StatusPage, Problem>>),
    Config(Reply<Arc<Config>>),
    Apply(Arc<Config>, Why, Reply<()>),
    Install(Box<Install>, Reply<Result<(), Problem>>),
    Drop(Vec<ProfileName>, Reply<()>),
    Binding(ProfileName, Reply<Result<Option<Binding>, Problem>>),
    Lock(Option<SealedPrivate>, Reply<Result<Saving, Problem>>),
    Unlock(Option<Private>, Reply<Result<Saving, Problem>>),
    KeysPlace(Reply<Result<KeysPlace, Problem>>),
    End(Reply<()>),
}

/// Why a configuration is put into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The user wants it read anew, having perhaps mended what was given up.
    Reload,
    /// A command changed it.
    Edit,
}

type Waiter = oneshot::Receiver<Answer>;

/// Whether the agent is locked, and the key that opens it, where a passphrase is set.
type KeysPlace = (bool, Option<SealedPrivate>);

/// The lock's record on its way to the disk; absent where it need not go there.
type Saving = Option<JoinHandle<io::Result<()>>>;

/// A key that was handed over, with what it already bought.
#[derive(Debug)]
pub struct Install {
    /// Whose.
    pub profile: Arc<Profile>,
    /// The key; `None` where its source is read when it is needed.
    pub key: Option<HeldKey>,
    /// The token that proved it.
    pub bought: Option<Bought>,
    /// Calls to the platform that were made for it.
    pub exchanges: u64,
}

/// One page of statuses.
#[derive(Debug)]
pub struct StatusPage {
    /// The profiles.
    pub profiles: Vec<ProfileStatus>,
    /// Whether more follow.
    pub more: bool,
    /// Profiles in the configuration.
    pub count: usize,
    /// Whether secrets are sealed or gone.
    pub locked: bool,
}

impl VaultHandle {
    /// Starts the vault with the profiles of `config`. Its task ends when the last handle is dropped.
    ///
    /// # Errors
    ///
    /// When the system has no timer for it.
    pub fn start(
        config: Arc<Config>,
        record: RecordFile,
        surroundings: Surroundings,
    ) -> io::Result<(Self, JoinHandle<()>)> {
        let (commands, receiver) = mpsc::channel(QUEUE);
        let alarm = surroundings.clock.alarm()?;
        let keeper = Keeper::new(record, surroundings.clock.steady());
        let locked = keeper.tell.subscribe();
        let mut vault = Vault {
            config: Arc::new(Config::default()),
            keeper,
            entries: BTreeMap::new(),
            put_away: BTreeMap::new(),
            attempts: JoinSet::new(),
            running: HashMap::new(),
            surroundings,
            next_run: 0,
        };
        vault.apply(config, Why::Edit);
        let task = tokio::spawn(vault.run(receiver, alarm));
        Ok((Self { commands, locked }, task))
    }

    /// Asks for a token and waits for it.
    ///
    /// # Errors
    ///
    /// When no profile is meant by `selector`; what the platform said is in the answer.
    pub async fn token(&self, selector: Selector, need: Need) -> Result<TokenAnswer, Problem> {
        let (profile, waiter) = self.ask(|reply| Command::Token(selector, need, reply)).await??;
        Ok((profile, waiter.await.map_err(|_closed| stopping())?))
    }

    /// Tries again now, whatever was given up, and waits for the outcome.
    ///
    /// # Errors
    ///
    /// When no profile is meant by `selector`; what the platform said is in the answer.
    pub async fn retry(&self, selector: Selector) -> Result<TokenAnswer, Problem> {
        let (profile, waiter) = self.ask(|reply| Command::Retry(selector, reply)).await??;
        Ok((profile, waiter.await.map_err(|_closed| stopping())?))
    }

    /// Says whether a token request would be answered well, as far as is known.
    ///
    /// # Errors
    ///
    /// Why it would not.
    pub async fn ready(&self, selector: Selector) -> Result<(), Problem> {
        self.ask(|reply| Command::Ready(selector, reply)).await?
    }

    /// Returns the profile that is meant.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn select(&self, selector: Selector) -> Result<Arc<Profile>, Problem> {
        self.ask(|reply| Command::Select(selector, reply)).await?
    }

    /// Returns the profiles behind `after`, one page of them.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn list(&self, after: String) -> Result<Listing, Problem> {
        self.ask(|reply| Command::List(after, reply)).await?
    }

    /// Returns the states of the profiles behind `after`, one page of them.
    ///
    /// # Errors
    ///
    /// When no profile is meant by `selector`.
    pub async fn status(&self, selector: Selector, after: String) -> Result<StatusPage, Problem> {
        self.ask(|reply| Command::Status(selector, after, reply)).await?
    }

    /// Returns the configuration in force.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn config(&self) -> Result<Arc<Config>, Problem> {
        self.ask(Command::Config).await
    }

    /// Puts a configuration into force. Keys and tokens stay, where they are still for the same.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn apply(&self, config: Arc<Config>, why: Why) -> Result<(), Problem> {
        self.ask(|reply| Command::Apply(config, why, reply)).await
    }

    /// Returns whom the key that a profile holds may be sent to.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn binding(&self, profile: ProfileName) -> Result<Option<Binding>, Problem> {
        self.ask(|reply| Command::Binding(profile, reply)).await?
    }

    /// Whether the agent is locked.
    pub fn is_locked(&self) -> bool {
        *self.locked.borrow()
    }

    /// Waits until the agent is locked.
    pub async fn falls(&self) {
        let fallen = self.locked.clone().wait_for(|is_locked| *is_locked).await.is_ok();
        if !fallen {
            // A vault that has ended answers for itself.
            std::future::pending::<()>().await;
        }
    }

    /// Locks; `key` is what secrets are sealed to from now on, where it is another one than before. One that
    /// is locked stays so.
    ///
    /// # Errors
    ///
    /// When the lock would not survive a restart, or is to have another key while it is locked.
    pub async fn lock(&self, key: Option<SealedPrivate>) -> Result<(), Problem> {
        let saving = self.ask(|reply| Command::Lock(key, reply)).await??;
        saved(saving, "the agent is locked, but would not be after a restart").await
    }

    /// Unlocks with the key that a passphrase opened, or without one where none is set.
    ///
    /// # Errors
    ///
    /// When it does not fit the lock, or the agent would be locked after a restart.
    pub async fn unlock(&self, key: Option<Private>) -> Result<(), Problem> {
        let saving = self.ask(|reply| Command::Unlock(key, reply)).await??;
        saved(saving, "the agent is open, but would be locked after a restart").await
    }

    /// Returns whether the agent is locked, and the key that opens it, where a passphrase is set.
    ///
    /// # Errors
    ///
    /// When the lock cannot be understood.
    pub async fn keys_place(&self) -> Result<(bool, Option<SealedPrivate>), Problem> {
        self.ask(Command::KeysPlace).await?
    }

    /// Answers everybody who waits, and nobody any more.
    pub async fn end(&self) {
        // One that has ended is what is wanted.
        let _ended = self.ask(Command::End).await.is_err();
    }

    /// Takes over a key.
    ///
    /// # Errors
    ///
    /// When its profile has gone or changed since the key was proven for it.
    pub async fn install(&self, install: Install) -> Result<(), Problem> {
        self.ask(|reply| Command::Install(Box::new(install), reply)).await?
    }

    /// Drops the keys and tokens of profiles.
    ///
    /// # Errors
    ///
    /// When the agent is stopping.
    pub async fn drop_secrets(&self, profiles: Vec<ProfileName>) -> Result<(), Problem> {
        self.ask(|reply| Command::Drop(profiles, reply)).await
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_closed| stopping())?;
        answer.await.map_err(|_closed| stopping())
    }
}

fn stopping() -> Problem {
    Problem::new(ErrorCode::STOPPING, "the agent is stopping", "start it again: dph-agent start")
}

/// What the vault works with.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Where keys are kept in memory.
    pub pool: Pool,
    /// What keys that are read were given for.
    pub bindings: Arc<Bindings>,
    /// The proxies of the environment.
    pub proxies: ProxyEnv,
}

struct Vault {
    config: Arc<Config>,
    keeper: Keeper,
    /// What profiles hold; empty while locked.
    entries: BTreeMap<ProfileName, Entry>,
    /// What they held when the lock came.
    put_away: BTreeMap<ProfileName, PutAway>,
    attempts: JoinSet<Finished>,
    /// Whose attempt each task makes.
    running: HashMap<Id, (ProfileName, u64)>,
    surroundings: Surroundings,
    /// Tells the attempts of a profile apart, so that one begun with a dropped key changes nothing.
    next_run: u64,
}

/// A profile while the agent is locked.
struct PutAway {
    /// Without key and token.
    entry: Entry,
    /// Those, where a passphrase is set.
    sealed: Option<Vec<u8>>,
}

struct Entry {
    profile: Arc<Profile>,
    key: Option<HeldKey>,
    freshness: Freshness<Reply<Answer>>,
    /// The user dropped a key that could be read again: it is not, until the user says so.
    forgotten: bool,
    /// The attempt whose outcome counts.
    run: u64,
    exchanges: u64,
}

impl Vault {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut alarm: Box<dyn Alarm>) {
        let mut set_to = None;
        loop {
            let due = self.entries.values().filter_map(|entry| entry.freshness.next_due());
            let next = due.chain(self.keeper.lock.falls_at(self.config.auto_lock)).min();
            if next != set_to {
                if let Err(error) = alarm.set(next) {
                    warn!(%error, "cannot set the timer: tokens are bought only when asked for");
                }
                set_to = next;
            }
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.handle(command),
                    None => return,
                },
                Some(ended) = self.attempts.join_next_with_id() => self.ended(ended),
                ring = std::future::poll_fn(|cx| alarm.poll_ring(cx)) => {
                    set_to = None;
                    self.rung(ring);
                }
            }
        }
    }

    fn handle(&mut self, command: Command) {
        let command = if self.keeper.lock.is_locked() { answered_locked(command) } else { Some(command) };
        let Some(command) = command else { return };
        // A caller who has gone needs no answer.
        let _caller_gone = match command {
            Command::Token(selector, need, reply) => {
                reply.send(self.queue(&selector, |state, caller, now| state.ask(need, caller, now))).is_err()
            }
            Command::Retry(selector, reply) => reply.send(self.queue(&selector, Freshness::retry)).is_err(),
            Command::Ready(selector, reply) => reply.send(self.ready(&selector)).is_err(),
            Command::Select(selector, reply) => reply.send(self.config.select(&selector).cloned()).is_err(),
            Command::List(after, reply) => reply.send(Ok(self.list(&after))).is_err(),
            Command::Status(selector, after, reply) => reply.send(self.status(&selector, &after)).is_err(),
            Command::Config(reply) => reply.send(Arc::clone(&self.config)).is_err(),
            Command::Apply(config, why, reply) => {
                self.apply(config, why);
                reply.send(()).is_err()
            }
            Command::Install(install, reply) => reply.send(self.install(*install)).is_err(),
            Command::Binding(name, reply) => {
                let key = self.entries.get(&name).and_then(|entry| entry.key.as_ref());
                reply.send(Ok(key.map(|key| key.binding.clone()))).is_err()
            }
            Command::Lock(key, reply) => reply.send(self.lock(key)).is_err(),
            Command::Unlock(key, reply) => reply.send(self.unlock(key)).is_err(),
            Command::KeysPlace(reply) => reply.send(self.keeper.keys_place()).is_err(),
            Command::End(reply) => {
                self.end();
                reply.send(()).is_err()
            }
            Command::Drop(names, reply) => {
                self.drop_secrets(&names);
                reply.send(()).is_err()
            }
        };
    }

    /// Lets the state of the profile that is meant decide about a caller.
    fn queue(
        &mut self,
        selector: &Selector,
        decide: impl FnOnce(&mut Freshness<Reply<Answer>>, Reply<Answer>, Steady) -> Vec<Effect<Reply<Answer>>>,
    ) -> Result<(Arc<Profile>, Waiter), Problem> {
        let profile = Arc::clone(self.config.select(selector)?);
        let entry = self.entries.get_mut(&profile.name).ok_or_else(stopping)?;
        entry.freshness.prune(Reply::is_closed);
        if entry.has_no_key() {
            return Err(no_key(&profile));
        }
        let (caller, waiter) = oneshot::channel();
        let effects = decide(&mut entry.freshness, caller, self.surroundings.clock.steady());
        self.carry_out(&profile.name, effects);
        Ok((profile, waiter))
    }

    /// An attempt has ended, perhaps by a mistake of ours, which must not leave its callers waiting.
    fn ended(&mut self, ended: Result<(Id, Finished), JoinError>) {
        match ended {
            Ok((id, finished)) => {
                self.running.remove(&id);
                self.finished(finished);
            }
            Err(error) => {
                let Some((profile, run)) = self.running.remove(&error.id()) else { return };
                if error.is_cancelled() {
                    return;
                }
                error!(%error, "an exchange ended unexpectedly");
                let problem = Problem::new(
                    ErrorCode::FAILED,
                    "the exchange failed inside the agent",
                    "its log says more",
                );
                self.finished(Finished {
                    profile,
                    run,
                    key: None,
                    exchanges: 0,
                    outcome: Outcome::Failed(problem),
                });
            }
        }
    }

    fn finished(&mut self, finished: Finished) {
        let (now, name) = (self.surroundings.clock.steady(), finished.profile);
        let Some(entry) = self.entries.get_mut(&name).filter(|entry| entry.run == finished.run) else {
            return;
        };
        entry.exchanges += finished.exchanges;
        if finished.key.is_some() {
            entry.key = finished.key;
        }
        report(&name, entry, &finished.outcome);
        let effects = entry.freshness.finished(finished.outcome, now, dice());
        self.carry_out(&name, effects);
    }

    fn rung(&mut self, ring: Ring) {
        let now = self.surroundings.clock.steady();
        if self.keeper.lock.next(Event::Tick, now, self.config.auto_lock).is_locked() {
            return self.lock_by_itself();
        }
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in names {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            let effects = match ring {
                Ring::Due => entry.freshness.due(now),
                Ring::Jump => entry.freshness.look_again(now),
            };
            self.carry_out(&name, effects);
        }
    }

    fn carry_out(&mut self, name: &ProfileName, effects: Vec<Effect<Reply<Answer>>>) {
        for effect in effects {
            match effect {
                // A caller who has gone needs no answer.
                Effect::Answer(caller, answer) => {
                    if answer.is_ok() {
                        self.keeper.happened(
                            Event::Use,
                            self.surroundings.clock.steady(),
                            self.config.auto_lock,
                        );
                    }
                    drop(caller.send(*answer));
                }
                Effect::Attempt(mode) => self.attempt(name, mode),
            }
        }
    }

    fn attempt(&mut self, name: &ProfileName, mode: Mode) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        self.next_run += 1;
        entry.run = self.next_run;
        let attempt = Attempt {
            profile: Arc::clone(&entry.profile),
            held: entry.key.clone(),
            mode,
            run: entry.run,
            surroundings: self.surroundings.clone(),
        };
        let task = self.attempts.spawn(Wiping::new(attempt.make()));
        self.running.insert(task.id(), (name.clone(), self.next_run));
    }

    /// Locks, and returns the record on its way to the disk.
    fn lock(&mut self, key: Option<SealedPrivate>) -> Result<Saving, Problem> {
        if self.keeper.lock.is_locked() {
            return if key.is_some() { Err(locked()) } else { Ok(None) };
        }
        if key.is_some() {
            self.keeper.record.key = key;
        }
        Ok(self.fall())
    }

    /// The record goes to the disk by itself; that it did not get there is said in the log.
    fn lock_by_itself(&mut self) {
        info!("locked: the limit that the configuration sets is reached");
        let saving = self.fall();
        tokio::spawn(async move {
            if let Err(problem) = saved(saving, "the agent would not be locked after a restart").await {
                error!(problem = problem.message, "the lock was not recorded");
            }
        });
    }

    /// Ends what runs, tells those who wait, and seals or drops every secret.
    fn fall(&mut self) -> Saving {
        self.keeper.happened(Event::Lock, self.surroundings.clock.steady(), self.config.auto_lock);
        self.attempts.abort_all();
        let to = self.keeper.record.key.as_ref().map(SealedPrivate::public);
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            self.next_run += 1;
            entry.run = self.next_run;
            let (token, effects) = entry.freshness.put_away(&locked());
            self.carry_out(&name, effects);
            let held = Held { key: entry.key.take(), token };
            let sealed = to.and_then(|to| held.seal(to, &name));
            self.put_away.insert(name, PutAway { entry, sealed });
        }
        info!(sealed = to.is_some(), "locked");
        Some(self.keeper.save(true))
    }

    fn unlock(&mut self, key: Option<Private>) -> Result<Saving, Problem> {
        self.keeper.fits(key.as_ref())?;
        if !self.keeper.lock.is_locked() {
            return Ok(None);
        }
        let now = self.surroundings.clock.steady();
        self.keeper.happened(Event::Unlock, now, self.config.auto_lock);
        for (name, PutAway { mut entry, sealed }) in std::mem::take(&mut self.put_away) {
            let held = sealed.zip(key.as_ref());
            let held =
                held.and_then(|(sealed, key)| Held::open(&sealed, key, &name, &self.surroundings.pool));
            let Held { key, token } = held.unwrap_or_default();
            entry.key = key;
            entry.freshness.take_back(token, now);
            self.entries.insert(name, entry);
        }
        self.apply(Arc::clone(&self.config), Why::Edit);
        info!("unlocked");
        Ok(Some(self.keeper.save(false)))
    }

    fn apply(&mut self, config: Arc<Config>, why: Why) {
        if self.keeper.lock.is_locked() {
            self.config = config;
            return;
        }
        let mut old = std::mem::take(&mut self.entries);
        self.config = Arc::clone(&config);
        for (name, profile) in &config.profiles {
            let entry = old.remove(name).unwrap_or_else(|| Entry::new(profile));
            self.entries.insert(name.clone(), entry);
            self.reconfigure(name, profile, why);
        }
        for (name, mut entry) in old {
            let gone = Problem::new(
                ErrorCode::NO_SUCH_PROFILE,
                format!("profile `{name}` was removed"),
                "name another one",
            );
            let effects = entry.freshness.dropped(&gone);
            self.carry_out(&name, effects);
        }
    }

    /// Answers everybody who waits; who asks from now on finds no entry.
    fn end(&mut self) {
        self.attempts.abort_all();
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            let effects = entry.freshness.dropped(&stopping());
            self.carry_out(&name, effects);
        }
    }

    /// Takes over a profile that was read anew. A token bought elsewhere or for somebody else goes, and
    /// so does a key that was read from another source; what was given up may be tried again.
    fn reconfigure(&mut self, name: &ProfileName, profile: &Arc<Profile>, why: Why) {
        let now = self.surroundings.clock.steady();
        let Some(entry) = self.entries.get_mut(name) else { return };
        let old = std::mem::replace(&mut entry.profile, Arc::clone(profile));
        if old.key_source != profile.key_source {
            entry.key = None;
        }
        entry.freshness.reconfigure(profile.always_fresh, profile.key_source.is_cheap());
        let effects = if old.buys_like(profile) {
            match why {
                Why::Reload => entry.freshness.forgive(now),
                Why::Edit if entry.has_no_key() => Vec::new(),
                Why::Edit => entry.freshness.begin(now),
            }
        } else {
            self.next_run += 1;
            (entry.run, entry.forgotten) = (self.next_run, false);
            entry.freshness.reset(now)
        };
        self.carry_out(name, effects);
    }

    fn install(&mut self, install: Install) -> Result<(), Problem> {
        let (now, name) = (self.surroundings.clock.steady(), &install.profile.name);
        let entry = self.entries.get_mut(name).filter(|entry| entry.profile.buys_like(&install.profile));
        let entry = entry.ok_or_else(|| changed_meanwhile(name))?;
        self.next_run += 1;
        entry.run = self.next_run;
        (entry.key, entry.forgotten) = (install.key, false);
        entry.exchanges += install.exchanges;
        let effects = entry.freshness.installed(install.bought, now, dice());
        self.carry_out(name, effects);
        Ok(())
    }

    fn drop_secrets(&mut self, names: &[ProfileName]) {
        for name in names {
            if let Some(put_away) = self.put_away.get_mut(name) {
                (put_away.sealed, put_away.entry.forgotten) = (None, true);
            }
            let Some(entry) = self.entries.get_mut(name) else { continue };
            (entry.key, entry.forgotten) = (None, true);
            self.next_run += 1;
            entry.run = self.next_run;
            let effects = entry.freshness.dropped(&no_key(&entry.profile));
            self.carry_out(name, effects);
        }
    }

    fn ready(&self, selector: &Selector) -> Result<(), Problem> {
        let profile = self.config.select(selector)?;
        let entry = self.entries.get(&profile.name).ok_or_else(stopping)?;
        match entry.freshness.trouble() {
            _ if entry.freshness.token_state(self.surroundings.clock.steady()) == TokenState::FRESH => Ok(()),
            Some(trouble) => Err(trouble.problem.clone()),
            None if entry.has_no_key() => Err(no_key(profile)),
            None => Ok(()),
        }
    }

    fn list(&self, after: &str) -> Listing {
        let mut behind = self.entries.values().filter(|entry| entry.profile.name.as_str() > after);
        Listing {
            profiles: behind.by_ref().take(PAGE_LEN).map(|entry| entry.profile.entry()).collect(),
            default: self.config.default_name().map(ProfileName::to_string),
            more: behind.next().is_some(),
        }
    }

    fn status(&self, selector: &Selector, after: &str) -> Result<StatusPage, Problem> {
        if self.keeper.lock.is_locked() {
            let count = self.config.profiles.len();
            return Ok(StatusPage { profiles: Vec::new(), more: false, count, locked: true });
        }
        let one = match selector {
            Selector { profile: None, for_url: None } => None,
            selector => Some(self.config.select(selector)?.name.clone()),
        };
        let chosen = |entry: &&Entry| one.as_ref().is_none_or(|name| *name == entry.profile.name);
        let mut behind =
            self.entries.values().filter(|entry| entry.profile.name.as_str() > after).filter(chosen);
        let profiles =
            behind.by_ref().take(PAGE_LEN).map(|entry| entry.status(&*self.surroundings.clock)).collect();
        Ok(StatusPage { profiles, more: behind.next().is_some(), count: self.entries.len(), locked: false })
    }
}

/// Turns away what a locked vault does not answer; it has nothing to look it up in.
fn answered_locked(command: Command) -> Option<Command> {
    // A caller who has gone needs no answer.
    let _caller_gone = match command {
        Command::Token(_, _, reply) | Command::Retry(_, reply) => reply.send(Err(locked())).is_err(),
        Command::Ready(_, reply) | Command::Install(_, reply) => reply.send(Err(locked())).is_err(),
        Command::Select(_, reply) => reply.send(Err(locked())).is_err(),
        Command::List(_, reply) => reply.send(Err(locked())).is_err(),
        Command::Binding(_, reply) => reply.send(Err(locked())).is_err(),
        answered @ (Command::Status(..)
        | Command::Config(_)
        | Command::Apply(..)
        | Command::Drop(..)
        | Command::Lock(..)
        | Command::Unlock(..)
        | Command::KeysPlace(_)
        | Command::End(_)) => return Some(answered),
    };
    None
}

/// Waits until the lock's record is on the disk.
async fn saved(saving: Saving, otherwise: &str) -> Result<(), Problem> {
    let Some(saving) = saving else { return Ok(()) };
    let written = saving.await.map_err(|_cancelled| stopping())?;
    written.map_err(|error| {
        Problem::new(
            ErrorCode::FAILED,
            format!("{otherwise}: cannot write its record: {error}"),
            "look at the state folder and its disk",
        )
    })
}

impl Entry {
    fn new(profile: &Arc<Profile>) -> Self {
        let freshness = Freshness::new(profile.always_fresh, profile.key_source.is_cheap());
        Self { profile: Arc::clone(profile), key: None, freshness, forgotten: false, run: 0, exchanges: 0 }
    }

    /// Whether only the user can bring a key.
    fn has_no_key(&self) -> bool {
        self.key.is_none() && (self.forgotten || !self.profile.key_source.is_readable())
    }

    fn key_state(&self) -> KeyState {
        let trouble = self.freshness.trouble().map(|trouble| trouble.problem.code);
        match trouble {
            Some(ErrorCode::KEY_REFUSED) => KeyState::REJECTED,
            Some(ErrorCode::ORIGIN_CHANGED) => KeyState::ORIGIN_CHANGED,
            Some(ErrorCode::MISCONFIGURED | ErrorCode::TOKEN_TOO_LARGE | ErrorCode::CONFIG) => {
                KeyState::MISCONFIGURED
            }
            Some(ErrorCode::SOURCE_UNAVAILABLE) => KeyState::UNAVAILABLE,
            Some(ErrorCode::NO_KEY) => KeyState::NONE,
            _ if self.key.is_some() => KeyState::HELD,
            _ if self.has_no_key() => KeyState::NONE,
            _ => KeyState::UNREAD,
        }
    }

    fn status(&self, clock: &dyn Clock) -> ProfileStatus {
        let (now, wall) = (clock.steady(), clock.wall());
        // Steady instants are shown on the wall clock as it stands now.
        let shown = |at: Steady| wall + seconds(at.since(now)) - seconds(now.since(at));
        ProfileStatus {
            entry: self.profile.entry(),
            key_state: self.key_state(),
            key_added_at: self.key.as_ref().map(|key| key.added_at),
            key_expires_at: None,
            token_state: self.freshness.token_state(now),
            usable_until: self.freshness.usable_until().map(shown),
            next_refresh_at: self.freshness.next_due().map(shown),
            served: self.freshness.served,
            exchanges: self.exchanges,
            last_error: self.freshness.trouble().map(|trouble| LastError {
                code: trouble.problem.code,
                message: trouble.problem.message.clone(),
                since: shown(trouble.since),
                next_try_at: trouble.next_try.map(shown),
            }),
        }
    }
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Returns why a key that was proven is not kept.
pub fn changed_meanwhile(name: &ProfileName) -> Problem {
    Problem::new(
        ErrorCode::EXISTS,
        format!("profile `{name}` was changed or removed while its key was proven"),
        "nothing was kept: look at it with `dph-agent-client list`, then add the key again",
    )
}

fn no_key(profile: &Profile) -> Problem {
    let name = &profile.name;
    Problem::new(
        ErrorCode::NO_KEY,
        format!("profile `{name}` holds no key"),
        format!("hand it over: dph-agent-client add --profile {name}"),
    )
}

fn dice() -> Dice {
    Dice { refresh: fastrand::f64(), backoff: fastrand::f64() }
}

/// Logs an outcome: the first failure of a kind is a warning, its repeats are not, recovery is news.
fn report(name: &ProfileName, entry: &Entry, outcome: &Outcome) {
    let before = entry.freshness.trouble().map(|trouble| trouble.problem.code);
    match outcome {
        Outcome::Bought(_) if before.is_some() => info!(profile = %name, "tokens are bought again"),
        Outcome::Bought(_) => debug!(profile = %name, "bought a token"),
        Outcome::Failed(problem) if before == Some(problem.code) => {
            debug!(profile = %name, code = %problem.code, problem = problem.message, "still no token");
        }
        Outcome::Failed(problem) => {
            warn!(profile = %name, code = %problem.code, problem = problem.message, "cannot buy a token");
        }
        Outcome::Unchanged => debug!(profile = %name, "the source still has the refused key"),
    }
}
