//! The one task that owns secrets; [`VaultHandle`] is how others ask it.

mod command;
mod drops;
mod entry;
mod handle;
mod locking;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use dph_agent_platform::ProxyEnv;
use dph_agent_protocol::{ErrorCode, Listing, PAGE_LEN, Secret, Selector};
use dph_agent_secret::Pool;
use dph_agent_secret::wiped_stack::Wiping;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tracing::{error, info, warn};

use crate::audit::{Audit, account};
use crate::binding::{Binding, Bindings};
use crate::clock::{Alarm, Clock, Ring, Steady};
use crate::config::{Config, Profile, ProfileName};
use crate::error::Problem;
use crate::exchange::{Attempt, Finished};
use crate::freshness::{Answer, Dice, Effect, Freshness, Mode, Outcome};
use crate::keeper::{Held, Keeper};
use crate::kept_key::KeptKey;
use crate::key_end::{self, Question, Told};
use crate::key_source::SealedFolder;
use crate::lock::{Event, LockOn, RecordFile};
use crate::seal::SealedPrivate;

use command::{Command, Reply, Waiter, answered_locked};
use drops::Drops;
use entry::{Entry, Withheld, report};
use locking::PutAway;

pub use command::{Change, ChangeKind, Install, StatusPage, Why};
pub use drops::Moment;
pub use handle::{TokenAnswer, VaultHandle};

/// A key that is held, with what it was given for.
#[derive(Clone, Debug)]
pub struct HeldKey {
    /// The key.
    pub key: Arc<KeptKey>,
    /// Whom it may be sent to.
    pub binding: Binding,
    /// When it was handed over or first read, in seconds since 1970.
    pub added_at: i64,
    /// When it is to be wiped.
    pub until: Option<Steady>,
    /// What its platform told of it.
    pub told: Option<Told>,
}

/// Returns what is told to those whom the agent's end leaves without an answer.
pub fn stopping() -> Problem {
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
    /// Where keys lie that the passphrase opens.
    pub sealed: SealedFolder,
    /// Where what happens is recorded.
    pub audit: Audit,
    /// The proxies of the environment.
    pub proxies: ProxyEnv,
}

struct Vault {
    config: Arc<Config>,
    /// What of the machine's doings is to lock it, for those who notice them.
    lock_on: watch::Sender<LockOn>,
    /// The configuration in force, for those who act by it.
    in_force: watch::Sender<Arc<Config>>,
    keeper: Keeper,
    /// What profiles hold; empty while locked.
    entries: BTreeMap<ProfileName, Entry>,
    /// What is being done to keys at their platforms.
    changes: BTreeMap<ProfileName, Change>,
    drops: Drops,
    /// What they held when the lock came.
    put_away: BTreeMap<ProfileName, PutAway>,
    attempts: JoinSet<Finished>,
    /// Questions about keys, beside the attempts.
    questions: JoinSet<Option<key_end::Answer>>,
    /// Whose attempt each task makes.
    running: HashMap<Id, (ProfileName, u64)>,
    surroundings: Surroundings,
    /// Whether the agent ends.
    has_ended: bool,
    /// Tells the attempts of a profile apart, so that one begun with a dropped key changes nothing.
    next_run: u64,
}

impl Vault {
    fn new(record: RecordFile, surroundings: Surroundings) -> Self {
        Self {
            config: Arc::new(Config::default()),
            lock_on: watch::Sender::default(),
            in_force: watch::Sender::default(),
            keeper: Keeper::new(record, surroundings.clock.steady()),
            entries: BTreeMap::new(),
            changes: BTreeMap::new(),
            drops: Drops::default(),
            put_away: BTreeMap::new(),
            attempts: JoinSet::new(),
            questions: JoinSet::new(),
            running: HashMap::new(),
            surroundings,
            has_ended: false,
            next_run: 0,
        }
    }

    async fn run(mut self, mut commands: mpsc::Receiver<Command>, mut alarm: Box<dyn Alarm>) {
        let mut set_to = None;
        loop {
            let next = self.next_due();
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
                Some(answer) = self.questions.join_next() => self.told(answer.ok().flatten()),
                ring = std::future::poll_fn(|cx| alarm.poll_ring(cx)) => {
                    set_to = None;
                    self.rung(ring);
                }
            }
        }
    }

    /// Returns when the alarm must ring next.
    fn next_due(&self) -> Option<Steady> {
        let due = self.entries.values().filter_map(|entry| entry.freshness.next_due());
        let ends = self.entries.values().filter_map(|entry| entry.key.as_ref()?.until);
        let sealed = self.put_away.values().filter_map(|put_away| put_away.until);
        let lock = self.keeper.lock.falls_at(self.config.auto_lock);
        due.chain(ends).chain(sealed).chain(lock).min()
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
            Command::Install(install, began, reply) => reply.send(self.install(*install, began)).is_err(),
            Command::Moment(reply) => reply.send(self.drops.now()).is_err(),
            Command::Undropped(name, began, reply) => reply.send(self.undropped(&name, began)).is_err(),
            Command::Key(name, reply) => {
                let key = self.entries.get(&name).and_then(|entry| entry.key.clone());
                reply.send(Ok(key)).is_err()
            }
            Command::UsableKey(name, reply) => reply.send(self.usable_key(&name)).is_err(),
            Command::Lock(key, reply) => reply.send(self.lock(key)).is_err(),
            Command::Unlock(key, opened, reply) => reply.send(self.unlock(key, opened)).is_err(),
            Command::LockByItself(cause, reply) => reply.send(self.lock_by_itself(cause)).is_err(),
            Command::KeysPlace(reply) => reply.send(self.keeper.keys_place()).is_err(),
            Command::End(reply) => {
                self.end();
                reply.send(()).is_err()
            }
            Command::Drop(names, reply) => {
                for name in &names {
                    self.drops.note(name);
                    self.withhold(name, Withheld::Forgotten);
                }
                reply.send(()).is_err()
            }
            Command::KeyReplaced(name, key, reply) => {
                self.key_replaced(&name, *key);
                reply.send(()).is_err()
            }
            Command::Change(name, change, reply) => reply.send(self.change(&name, change)).is_err(),
            Command::DropAll(reply) => {
                self.drop_all();
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
        if let Some(refusal) = entry.refusal() {
            return Err(refusal);
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
        if let Some(mut key) = finished.key {
            let same = entry.key.as_ref().filter(|held| held.key == key.key);
            key.told = same.and_then(|held| held.told);
            entry.key = Some(key);
        }
        report(&name, entry, &finished.outcome);
        account::exchange(&name, &finished.outcome, &self.surroundings);
        let bearer = finished.outcome.token();
        let effects = entry.freshness.finished(finished.outcome, now, dice());
        self.carry_out(&name, effects);
        self.ask_about_key(&name, bearer);
    }

    /// Asks the platform about the key that bought a token, where that is due.
    fn ask_about_key(&mut self, name: &ProfileName, bearer: Option<Secret>) {
        let (Some(bearer), Some(entry)) = (bearer, self.entries.get_mut(name)) else { return };
        let Some(held) = entry.key.as_mut() else { return };
        let Some(told) = key_end::due(&entry.profile, held.told, self.surroundings.clock.steady()) else {
            return;
        };
        held.told = Some(told);
        let question = Question { profile: Arc::clone(&entry.profile), held: held.clone(), bearer };
        self.questions.spawn(Wiping::new(question.ask(self.surroundings.clone())));
    }

    /// The platform told something about a key; it is for the key that is still held.
    fn told(&mut self, answer: Option<key_end::Answer>) {
        let Some(answer) = answer else { return };
        let entry = self.entries.get_mut(&answer.profile.name);
        let held = entry.and_then(|entry| entry.key.as_mut()).filter(|held| held.key == answer.key);
        if let Some(told) = held.and_then(|held| held.told.as_mut()) {
            told.expires_at = answer.expires_at;
        }
    }

    fn rung(&mut self, ring: Ring) {
        let now = self.surroundings.clock.steady();
        self.expire(now);
        if self.keeper.lock.next(Event::Tick, now, self.config.auto_lock).is_locked() {
            return self.limit_is_reached();
        }
        let names: Vec<_> = self.entries.keys().cloned().collect();
        for name in names {
            let Some(entry) = self.entries.get_mut(&name) else { continue };
            entry.freshness.prune(Reply::is_closed);
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
        if entry.change.as_ref().is_some_and(|change| change.holds) {
            entry.deferred = Some(mode);
            return;
        }
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

    fn apply(&mut self, config: Arc<Config>, why: Why) {
        self.surroundings.audit.set_mode(config.audit, self.surroundings.clock.wall());
        let on = config.auto_lock.on;
        self.lock_on.send_if_modified(|told| std::mem::replace(told, on) != on);
        self.in_force.send_replace(Arc::clone(&config));
        if self.keeper.lock.is_locked() {
            self.config = config;
            return;
        }
        let mut old = std::mem::take(&mut self.entries);
        self.config = Arc::clone(&config);
        for (name, profile) in &config.profiles {
            let entry = old.remove(name).unwrap_or_else(|| Entry::new(profile, self.changes.get(name)));
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
        self.has_ended = true;
        self.attempts.abort_all();
        self.questions.abort_all();
        for (name, mut entry) in std::mem::take(&mut self.entries) {
            let effects = entry.freshness.dropped(&stopping());
            self.carry_out(&name, effects);
        }
    }

    /// Takes over a profile that was read anew. A token bought elsewhere or for somebody else goes, and
    /// so does a key that was read from another source; what was given up may be tried again. What the user
    /// dropped stays so: whoever can write the configuration has no say in that.
    fn reconfigure(&mut self, name: &ProfileName, profile: &Arc<Profile>, why: Why) {
        let now = self.surroundings.clock.steady();
        let Some(entry) = self.entries.get_mut(name) else { return };
        let old = std::mem::replace(&mut entry.profile, Arc::clone(profile));
        if old.key_source != profile.key_source {
            entry.key = None;
        }
        entry.freshness.reconfigure(profile.always_fresh, profile.key_source.is_cheap());
        let effects = if entry.withheld.is_some() {
            Vec::new()
        } else if old.buys_like(profile) {
            match why {
                Why::Reload => entry.freshness.forgive(now),
                Why::Edit if entry.has_no_key() => Vec::new(),
                Why::Edit => entry.freshness.begin(now),
            }
        } else {
            self.next_run += 1;
            entry.run = self.next_run;
            entry.freshness.reset(now)
        };
        self.carry_out(name, effects);
    }

    /// Takes over a key. What was dropped is brought back by what the user began after that, at `began`, and by
    /// nothing else.
    fn install(&mut self, install: Install, began: Option<Moment>) -> Result<(), Problem> {
        if self.has_ended {
            return Err(stopping());
        }
        let (now, name) = (self.surroundings.clock.steady(), &install.profile.name);
        match (began, self.entries.get(name)) {
            (Some(began), _) => self.undropped(name, began)?,
            (None, Some(entry)) if entry.withheld.is_some() => return Err(entry.no_key()),
            (None, _) => {}
        }
        let entry = self.entries.get_mut(name).filter(|entry| entry.profile.buys_like(&install.profile));
        let entry = entry.ok_or_else(|| changed_meanwhile(name))?;
        self.next_run += 1;
        entry.run = self.next_run;
        (entry.key, entry.withheld, entry.deferred) = (install.key, None, None);
        entry.exchanges += install.exchanges;
        let bearer = install.bought.as_ref().map(|bought| bought.token.clone());
        let effects = entry.freshness.installed(install.bought, now, dice());
        self.carry_out(name, effects);
        self.ask_about_key(name, bearer);
        Ok(())
    }

    /// Makes sure that the key of a profile was not dropped since a moment.
    fn undropped(&self, name: &ProfileName, began: Moment) -> Result<(), Problem> {
        if self.drops.came_after(began, name) { Err(dropped_meanwhile(name)) } else { Ok(()) }
    }

    /// Wipes the keys whose time is over.
    fn expire(&mut self, now: Steady) {
        let over = |until: Option<Steady>| until.is_some_and(|until| until <= now);
        let open =
            self.entries.iter().filter(|(_, entry)| over(entry.key.as_ref().and_then(|key| key.until)));
        let sealed = self.put_away.iter().filter(|(_, put_away)| over(put_away.until));
        let names: Vec<_> = open.map(|(name, _)| name).chain(sealed.map(|(name, _)| name)).cloned().collect();
        for name in names {
            info!(profile = %name, "the time that its key was given for is over: wiped");
            self.withhold(&name, Withheld::Expired { at: now });
        }
    }

    /// Drops every key and token, and reads none again until the user says so.
    fn drop_all(&mut self) {
        warn!("all keys and tokens were dropped by a signal");
        self.drops.note_all();
        account::dropped_by_signal(&self.surroundings);
        self.attempts.abort_all();
        self.questions.abort_all();
        let at = self.surroundings.clock.steady();
        let names: Vec<_> = self.entries.keys().chain(self.put_away.keys()).cloned().collect();
        names.iter().for_each(|name| self.withhold(name, Withheld::Signalled { at }));
    }

    /// Drops key and token of a profile.
    fn withhold(&mut self, name: &ProfileName, why: Withheld) {
        if let Some(put_away) = self.put_away.get_mut(name) {
            (put_away.sealed, put_away.until, put_away.entry.withheld) = (None, None, Some(why));
        }
        let Some(entry) = self.entries.get_mut(name) else { return };
        (entry.key, entry.withheld, entry.deferred) = (None, Some(why), None);
        self.next_run += 1;
        entry.run = self.next_run;
        let effects = entry.freshness.dropped(&entry.no_key());
        self.carry_out(name, effects);
    }

    /// Takes note of what is being done to a key at its platform, or that it is done. Returns until when the
    /// token is valid that was handed out last, by the wall clock.
    fn change(&mut self, name: &ProfileName, change: Option<Change>) -> Option<i64> {
        match &change {
            Some(change) => drop(self.changes.insert(name.clone(), change.clone())),
            None => drop(self.changes.remove(name)),
        }
        if let Some(put_away) = self.put_away.get_mut(name) {
            put_away.entry.change.clone_from(&change);
        }
        let entry = self.entries.get_mut(name)?;
        let until = entry.status(&*self.surroundings.clock).usable_until;
        let begins = change.as_ref().is_some_and(|change| change.holds)
            && !entry.change.as_ref().is_some_and(|before| before.holds);
        let revokes = change.as_ref().is_some_and(|change| change.kind == ChangeKind::Revoke);
        entry.change = change;
        let running = self.running.values().any(|(whose, run)| whose == name && *run == entry.run);
        if begins {
            // What is under way with the old key counts for nothing any more.
            self.next_run += 1;
            entry.run = self.next_run;
            entry.deferred = running.then_some(Mode::Held);
        }
        if revokes && begins {
            let effects = entry.freshness.dropped(&entry.refusal().unwrap_or_else(stopping));
            self.carry_out(name, effects);
        }
        self.attempt_deferred(name);
        until
    }

    /// A profile has another key than the one that was sealed when the lock came. What was dropped stays so.
    fn key_replaced(&mut self, name: &ProfileName, key: HeldKey) {
        let to = self.keeper.record.key.as_ref().map(SealedPrivate::public);
        if let Some(put_away) = self.put_away.get_mut(name).filter(|it| it.entry.withheld.is_none()) {
            put_away.sealed = to.and_then(|to| Held { key: Some(key), token: None }.seal(to, name));
        } else if let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.withheld.is_none()) {
            entry.key = Some(key);
        }
    }

    /// Makes the attempt that waited for a change to end.
    fn attempt_deferred(&mut self, name: &ProfileName) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        if entry.change.as_ref().is_some_and(|change| change.holds) {
            return;
        }
        if let Some(mode) = entry.deferred.take() {
            self.attempt(name, mode);
        }
    }

    /// Returns the key that is held, or nothing where its source may be read.
    fn usable_key(&self, name: &ProfileName) -> Result<Option<HeldKey>, Problem> {
        let entry = self.entries.get(name).ok_or_else(stopping)?;
        if entry.has_no_key() { Err(entry.no_key()) } else { Ok(entry.key.clone()) }
    }

    fn ready(&self, selector: &Selector) -> Result<(), Problem> {
        let profile = self.config.select(selector)?;
        let entry = self.entries.get(&profile.name).ok_or_else(stopping)?;
        entry.obstacle(self.surroundings.clock.steady()).map_or(Ok(()), Err)
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

/// Returns why a key that was proven is not kept.
pub fn changed_meanwhile(name: &ProfileName) -> Problem {
    Problem::new(
        ErrorCode::EXISTS,
        format!("profile `{name}`, or its key, was changed or removed while the key was proven"),
        "nothing was kept: look at it with `dph-agent-client list`, then add the key again",
    )
}

fn dropped_meanwhile(name: &ProfileName) -> Problem {
    Problem::new(
        ErrorCode::NO_KEY,
        format!("all keys of profile `{name}` were dropped while this one was on its way"),
        format!("nothing of it was kept; to have it kept: dph-agent-client add --profile {name}"),
    )
}

fn dice() -> Dice {
    Dice { refresh: fastrand::f64(), backoff: fastrand::f64() }
}
