//! The token of one profile: who gets it, when the next is bought, what a failure means. Pure: time
//! and chance come in, effects go out.

use std::time::Duration;

use dph_agent_protocol::{ErrorCode, Secret, TokenState, Warning};

use crate::clock::Steady;
use crate::error::Problem;
use crate::refresh::{
    FORBIDDEN_TRIES, KEPT_WITHOUT_EXPIRY, LONGEST_RETRY_AFTER, NEW_ENOUGH, PROBE_EVERY, REFRESH_SHARE,
    TRY_SPACING, backoff, default_freshness, in_use_for, refresh_after,
};

/// What a caller needs of a token.
#[derive(Clone, Debug, Default)]
pub struct Need {
    /// Life that it must have left; `None`: the default freshness.
    pub min_life: Option<Duration>,
    /// It must be new: asked for at the platform no earlier than this.
    pub sent_since: Option<Steady>,
    /// It must not be this one, which the platform has just refused.
    pub not: Option<Secret>,
}

/// A token as it was bought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bought {
    /// The token.
    pub token: Secret,
    /// When the request for it was sent, from where its life counts.
    pub sent: Steady,
    /// Life from then on; `None`: the platform did not say.
    pub life: Option<Duration>,
}

impl Bought {
    /// Returns the end of the token's use.
    pub fn ends(&self) -> Steady {
        self.sent + self.life.unwrap_or(KEPT_WITHOUT_EXPIRY)
    }
}

/// What a caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The token.
    pub token: Secret,
    /// Life that is left; `None`: the platform did not say.
    pub left: Option<Duration>,
    /// What the user should know.
    pub warning: Option<Warning>,
}

/// What a caller does not get, and when to ask again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub problem: Problem,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { problem, retry_after: None }
    }
}

/// The answer to a caller.
pub type Answer = Result<Grant, Refusal>;

/// How an attempt to buy begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With the key that is held, else with what the source has.
    Held,
    /// With what the source has now, where it can be read again.
    Reread,
    /// Only if the source has another key than the one that was refused.
    IfChanged,
}

/// How an attempt to buy ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// With a token.
    Bought(Bought),
    /// Without.
    Failed(Problem),
    /// The source still has the key that was refused.
    Unchanged,
}

impl Outcome {
    /// Returns the token that was bought.
    pub fn token(&self) -> Option<Secret> {
        match self {
            Self::Bought(bought) => Some(bought.token.clone()),
            Self::Failed(_) | Self::Unchanged => None,
        }
    }
}

/// What must be done now.
#[derive(Debug)]
pub enum Effect<W> {
    /// Tell a caller.
    Answer(W, Box<Answer>),
    /// Try to buy a token.
    Attempt(Mode),
}

/// What has gone wrong since something went right.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The last failure.
    pub problem: Problem,
    /// Since when failures of this kind happen.
    pub since: Steady,
    /// When the agent tries again by itself.
    pub next_try: Option<Steady>,
    /// The platform asked for silence until then.
    barred_until: Option<Steady>,
    /// When the last attempt ended.
    last_end: Steady,
    /// Failures in a row.
    failures: u32,
    /// Answers with 403 in a row.
    forbidden: u32,
}

/// Chance, in the two places where freshness needs it.
#[derive(Clone, Copy, Debug)]
pub struct Dice {
    /// Where in [`REFRESH_SHARE`] the next refresh comes, 0 to 1.
    pub refresh: f64,
    /// Where in its range a pause lies, 0 to 1.
    pub backoff: f64,
}

/// The token of one profile. `W` is how a waiting caller is reached.
#[derive(Debug)]
pub struct Freshness<W> {
    always: bool,
    can_reread: bool,
    held: Option<Bought>,
    refresh_at: Option<Steady>,
    /// When the attempt that is running began.
    running: Option<Steady>,
    waiting: Vec<(Need, W)>,
    trouble: Option<Trouble>,
    last_asked: Option<Steady>,
    last_life: Option<Duration>,
    /// Life of a token that fell short of what was asked when it was new: until the next one, no other
    /// is bought for those who ask for more.
    reach: Option<Duration>,
    /// Whether the attempt that is running was begun for callers alone, though what is held would do for others.
    is_extra: bool,
    /// When the last token was asked for that came of such an attempt.
    extra_at: Option<Steady>,
    /// When the platform sold a token again that a caller had rejected.
    sold_again: Option<Steady>,
    /// Tokens handed out.
    pub served: u64,
}

type Effects<W> = Vec<Effect<W>>;

impl<W> Freshness<W> {
    /// Creates the state of a profile that holds no token. `always`: refreshed whether it is used or
    /// not. `can_reread`: its key source may be looked at whenever a caller asks.
    pub fn new(always: bool, can_reread: bool) -> Self {
        Self {
            always,
            can_reread,
            held: None,
            refresh_at: None,
            running: None,
            waiting: Vec::new(),
            trouble: None,
            last_asked: None,
            last_life: None,
            reach: None,
            is_extra: false,
            extra_at: None,
            sold_again: None,
            served: 0,
        }
    }

    /// Takes over changed settings; what is held stays.
    pub fn reconfigure(&mut self, always: bool, can_reread: bool) {
        (self.always, self.can_reread) = (always, can_reread);
    }

    /// A caller asks for a token.
    pub fn ask(&mut self, need: Need, caller: W, now: Steady) -> Effects<W> {
        self.last_asked = Some(now);
        if let Some(grant) = self.grant(&need, now) {
            return self.answer(caller, Ok(grant));
        }
        if self.running.is_some() {
            self.waiting.push((need, caller));
            return Vec::new();
        }
        match self.may_try(&need, now) {
            Ok(mode) => {
                self.waiting.push((need, caller));
                self.start_for_callers(mode, now)
            }
            Err(refusal) => self.answer(caller, Err(refusal)),
        }
    }

    /// The user wants a try now, whatever was given up; `caller` waits for its outcome.
    pub fn retry(&mut self, caller: W, now: Steady) -> Effects<W> {
        self.last_asked = Some(now);
        if let Some(trouble) = &mut self.trouble {
            (trouble.barred_until, trouble.forbidden) = (None, 0);
        }
        // Only an attempt that begins after this moment has seen what the user has just mended.
        let need = Need { sent_since: Some(now), ..Need::default() };
        self.waiting.push((need, caller));
        if self.running.is_some() { Vec::new() } else { self.start_for_callers(Mode::Reread, now) }
    }

    /// An attempt has ended.
    pub fn finished(&mut self, outcome: Outcome, now: Steady, dice: Dice) -> Effects<W> {
        let began = self.running.take().unwrap_or(now);
        if let Outcome::Bought(bought) = &outcome
            && self.is_extra
        {
            self.extra_at = Some(bought.sent);
        }
        match outcome {
            Outcome::Bought(bought) => self.bought(bought, now, dice),
            Outcome::Failed(problem) => {
                let refusal = self.failed(problem, now, dice);
                self.refuse_waiting(&refusal, began, now)
            }
            Outcome::Unchanged => match &mut self.trouble {
                Some(trouble) => {
                    trouble.last_end = now;
                    let refusal = Refusal::from(trouble.problem.clone());
                    self.refuse_waiting(&refusal, began, now)
                }
                // What was given up has been forgiven meanwhile.
                None if self.waiting.is_empty() => Vec::new(),
                None => self.start(Mode::Held, now),
            },
        }
    }

    /// A token was bought outside an attempt, to prove a new key.
    pub fn installed(&mut self, bought: Option<Bought>, now: Steady, dice: Dice) -> Effects<W> {
        (self.running, self.trouble, self.held, self.refresh_at) = (None, None, None, None);
        self.last_asked = Some(now);
        match bought {
            Some(bought) => self.bought(bought, now, dice),
            None if self.waiting.is_empty() => Vec::new(),
            None => self.start(Mode::Held, now),
        }
    }

    /// Whom or what tokens are for has changed: what was bought is of no use any more.
    pub fn reset(&mut self, now: Steady) -> Effects<W> {
        (self.running, self.trouble, self.held, self.refresh_at) = (None, None, None, None);
        (self.reach, self.last_life) = (None, None);
        if self.waiting.is_empty() { self.begin(now) } else { self.start(Mode::Held, now) }
    }

    /// The user may have mended what was given up: it is tried again when somebody asks, or now for a
    /// profile that is in use.
    pub fn forgive(&mut self, now: Steady) -> Effects<W> {
        if self.trouble.as_ref().is_some_and(|trouble| !tries_again(&trouble.problem)) {
            self.trouble = None;
            self.refresh_at = self.held.as_ref().map(|_| now);
        }
        self.begin(now)
    }

    /// Drops callers who have gone.
    pub fn prune(&mut self, gone: impl Fn(&W) -> bool) {
        self.waiting.retain(|(_, caller)| !gone(caller));
    }

    /// The key is gone: so are the token and, for those who wait, the hope.
    pub fn dropped(&mut self, problem: &Problem) -> Effects<W> {
        (self.running, self.trouble, self.held, self.refresh_at) = (None, None, None, None);
        (self.last_asked, self.reach) = (None, None);
        self.refuse_all(&problem.clone().into())
    }

    /// The agent is locked: the token is given away, and those who wait are told.
    pub fn put_away(&mut self, problem: &Problem) -> (Option<Bought>, Effects<W>) {
        self.running = None;
        (self.held.take(), self.refuse_all(&problem.clone().into()))
    }

    /// The agent is open again, with the token that it had, if that was kept.
    pub fn take_back(&mut self, token: Option<Bought>, now: Steady) {
        self.held = token.filter(|token| token.ends() > now);
        if self.held.is_none() {
            self.refresh_at = None;
        }
    }

    /// Time has passed, to [`next_due`](Self::next_due) or beyond.
    pub fn due(&mut self, now: Steady) -> Effects<W> {
        if self.next_due().is_none_or(|due| due > now) {
            return Vec::new();
        }
        if self.next_extra().is_some_and(|at| at <= now) {
            let mode = if self.is_retry_wanted() { Mode::Reread } else { Mode::Held };
            return self.start_for_callers(mode, now);
        }
        self.refresh_at = None;
        let mode = match &self.trouble {
            Some(trouble) if !tries_again(&trouble.problem) => Mode::Reread,
            Some(trouble) => trouble.mode(),
            None => Mode::Held,
        };
        self.start(mode, now)
    }

    /// The machine woke up or its clock was set: pauses that only spread load end here.
    pub fn look_again(&mut self, now: Steady) -> Effects<W> {
        if let Some(trouble) = &mut self.trouble {
            let barred = trouble.barred_until.is_some_and(|until| until > now);
            if tries_again(&trouble.problem) && !barred && trouble.next_try.is_some() {
                trouble.next_try = Some(now);
            }
        }
        self.due(now)
    }

    /// Returns when [`due`](Self::due) has something to do, which it has only while the profile is used.
    pub fn next_due(&self) -> Option<Steady> {
        let due = match &self.trouble {
            _ if self.running.is_some() => None,
            Some(trouble) => trouble.next_try,
            None => self.refresh_at,
        };
        let used_until = self.last_asked.map(|asked| asked + in_use_for(self.last_life));
        let due = due.filter(|due| self.always || used_until.is_some_and(|until| *due <= until));
        due.into_iter().chain(self.next_extra()).min()
    }

    /// Returns when those are bought for who wait though nothing is under way.
    fn next_extra(&self) -> Option<Steady> {
        let wait = self.running.is_none() && !self.waiting.is_empty();
        // Who says `refresh` wants a try, not a token.
        let spacing = if self.is_retry_wanted() { TRY_SPACING } else { NEW_ENOUGH };
        self.extra_at.filter(|_| wait).map(|at| at + spacing)
    }

    fn is_retry_wanted(&self) -> bool {
        self.waiting.iter().any(|(need, _)| need.sent_since.is_some())
    }

    /// Begins without a caller, for profiles that are always fresh.
    pub fn begin(&mut self, now: Steady) -> Effects<W> {
        let idle = self.refresh_at.is_none() && self.running.is_none() && self.trouble.is_none();
        if self.always && idle { self.start(Mode::Held, now) } else { Vec::new() }
    }

    /// Returns the state of the token.
    pub fn token_state(&self, now: Steady) -> TokenState {
        match &self.held {
            Some(held) if held.ends() > now => TokenState::FRESH,
            _ if self.running.is_some() => TokenState::FETCHING,
            Some(_) => TokenState::EXPIRED,
            None => TokenState::NONE,
        }
    }

    /// Returns until when the held token is valid.
    pub fn usable_until(&self) -> Option<Steady> {
        self.held.as_ref().map(Bought::ends)
    }

    /// Returns what is going wrong.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    fn grant(&self, need: &Need, now: Steady) -> Option<Grant> {
        let held = self.held.as_ref()?;
        let left = held.ends().since(now);
        let life = held.life.unwrap_or(KEPT_WITHOUT_EXPIRY);
        let fresh = match (need.min_life, held.life) {
            (None, _) => left > Duration::ZERO && left >= default_freshness(life),
            (Some(asked), Some(_)) => left > Duration::ZERO && left >= asked,
            // No life can be promised but none.
            (Some(asked), None) => left > Duration::ZERO && asked.is_zero(),
        };
        (fresh && is_new_enough(held, need) && need.not.as_ref() != Some(&held.token)).then(|| Grant {
            token: held.token.clone(),
            left: held.life.map(|_| left),
            warning: self.trouble.as_ref().and_then(|trouble| warning(&trouble.problem)),
        })
    }

    fn may_try(&self, need: &Need, now: Steady) -> Result<Mode, Refusal> {
        if let (Some(asked), Some(reach)) = (need.min_life, self.reach)
            && asked > reach
        {
            return Err(self.life_too_short().into());
        }
        let same = need.not.is_some() && need.not.as_ref() == self.held.as_ref().map(|held| &held.token);
        if same && self.sold_again.is_some_and(|at| now.since(at) < NEW_ENOUGH) {
            return Err(still_rejected().into());
        }
        let Some(trouble) = &self.trouble else { return Ok(Mode::Held) };
        if let Some(refusal) = trouble.barred(now) {
            return Err(refusal);
        }
        let rested = now.since(trouble.last_end) >= TRY_SPACING;
        let probe = trouble.next_try.is_some_and(|at| at <= now);
        match trouble.problem.code {
            _ if tries_again(&trouble.problem) && rested => Ok(trouble.mode()),
            ErrorCode::KEY_REFUSED | ErrorCode::MISCONFIGURED if probe => Ok(Mode::Reread),
            ErrorCode::KEY_REFUSED if self.can_reread && rested => Ok(Mode::IfChanged),
            _ => Err(Refusal {
                problem: trouble.problem.clone(),
                retry_after: trouble
                    .next_try
                    .map(|at| at.since(now))
                    .filter(|_| tries_again(&trouble.problem)),
            }),
        }
    }

    fn start(&mut self, mode: Mode, now: Steady) -> Effects<W> {
        (self.running, self.is_extra) = (Some(now), false);
        vec![Effect::Attempt(mode)]
    }

    /// Begins an attempt for those who wait. Where what is held would do for a caller who wants nothing special, such
    /// attempts keep a distance, and [`due`](Self::due) begins the next one: who rejects each token, or asks for a life
    /// that only a new one has, would hammer the platform.
    fn start_for_callers(&mut self, mode: Mode, now: Steady) -> Effects<W> {
        let is_extra = self.trouble.is_none() && self.grant(&Need::default(), now).is_some();
        if is_extra && self.next_extra().is_some_and(|at| at > now) {
            return Vec::new();
        }
        let effects = self.start(mode, now);
        self.is_extra = is_extra;
        effects
    }

    fn bought(&mut self, bought: Bought, now: Steady, dice: Dice) -> Effects<W> {
        let left = bought.ends().since(now);
        let (from, to) = (REFRESH_SHARE.start(), REFRESH_SHARE.end());
        let share = from + (to - from) * dice.refresh.clamp(0.0, 1.0);
        // A token without expiry is bought again when somebody asks.
        let is_due = bought.life.is_some() || self.always;
        self.refresh_at = is_due.then(|| now + refresh_after(left, share));
        (self.trouble, self.reach, self.last_life) = (None, None, bought.life);
        self.held = Some(bought);
        let waiting = std::mem::take(&mut self.waiting);
        let mut effects = Vec::with_capacity(waiting.len());
        for (need, caller) in waiting {
            self.settle(need, caller, now, &mut effects);
        }
        effects.extend(self.try_for_waiting(now));
        effects
    }

    /// Begins another attempt for those who still wait, unless the platform asked for silence.
    fn try_for_waiting(&mut self, now: Steady) -> Effects<W> {
        if self.waiting.is_empty() {
            return Vec::new();
        }
        match self.trouble.as_ref().and_then(|trouble| trouble.barred(now)) {
            Some(refusal) => self.refuse_all(&refusal),
            None => self.start_for_callers(Mode::Reread, now),
        }
    }

    fn refuse_all(&mut self, refusal: &Refusal) -> Effects<W> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .map(|(_, caller)| refuse(caller, refusal.clone()))
            .collect()
    }

    /// Answers a caller who waited for the token that was just bought.
    fn settle(&mut self, need: Need, caller: W, now: Steady, effects: &mut Effects<W>) {
        let Some(held) = &self.held else { return };
        if !is_new_enough(held, &need) {
            return self.waiting.push((need, caller));
        }
        let same = need.not.as_ref() == Some(&held.token);
        // Nothing fresher is to be had than what was bought a moment ago, so the default asks no more.
        let grant = Grant {
            token: held.token.clone(),
            left: held.life.map(|_| held.ends().since(now)),
            warning: None,
        };
        let short = need.min_life.is_some_and(|asked| grant.left.unwrap_or_default() < asked);
        let answer = if same {
            self.sold_again = Some(now);
            Err(still_rejected().into())
        } else if short {
            self.reach = Some(grant.left.unwrap_or(Duration::ZERO));
            Err(self.life_too_short().into())
        } else {
            Ok(grant)
        };
        effects.extend(self.answer(caller, answer));
    }

    fn failed(&mut self, mut problem: Problem, now: Steady, dice: Dice) -> Refusal {
        let before = self.trouble.take();
        let forbidden = before.as_ref().filter(|_| problem.doubtful).map_or(0, |trouble| trouble.forbidden);
        let forbidden = forbidden + u32::from(problem.doubtful);
        if forbidden >= FORBIDDEN_TRIES {
            problem.code = ErrorCode::KEY_REFUSED;
        }
        let failures = before.as_ref().map_or(0, |trouble| trouble.failures).saturating_add(1);
        let bar =
            problem.retry_after.filter(|_| tries_again(&problem)).map(|bar| bar.min(LONGEST_RETRY_AFTER));
        let pause = match problem.code {
            // Platforms that ask for no pause at all get one all the same.
            _ if tries_again(&problem) => Some(backoff(failures, dice.backoff).max(bar.unwrap_or_default())),
            ErrorCode::KEY_REFUSED | ErrorCode::MISCONFIGURED | ErrorCode::TOKEN_TOO_LARGE => {
                Some(PROBE_EVERY)
            }
            _ => None,
        };
        let same_kind = before.filter(|trouble| trouble.problem.code == problem.code);
        self.trouble = Some(Trouble {
            since: same_kind.map_or(now, |trouble| trouble.since),
            next_try: pause.map(|pause| now + pause),
            barred_until: bar.map(|bar| now + bar),
            last_end: now,
            failures,
            forbidden,
            problem: problem.clone(),
        });
        Refusal { retry_after: pause.filter(|_| tries_again(&problem)), problem }
    }

    /// Tells those who waited for an attempt that it failed, but for those who need one that began later.
    fn refuse_waiting(&mut self, refusal: &Refusal, began: Steady, now: Steady) -> Effects<W> {
        let (later, waiting) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(need, _)| need.sent_since.is_some_and(|since| began < since));
        self.waiting = later;
        let mut effects: Effects<W> =
            Vec::into_iter(waiting).map(|(_, caller)| refuse(caller, refusal.clone())).collect();
        effects.extend(self.try_for_waiting(now));
        effects
    }

    fn answer(&mut self, caller: W, answer: Answer) -> Effects<W> {
        self.served += u64::from(answer.is_ok());
        vec![Effect::Answer(caller, Box::new(answer))]
    }

    fn life_too_short(&self) -> Problem {
        let seen = match self.held.as_ref().and_then(|held| held.life) {
            Some(life) => format!("this platform's tokens live {} s, less than was asked", life.as_secs()),
            None => "this platform does not say how long its tokens live".to_owned(),
        };
        Problem::new(
            ErrorCode::LIFE_TOO_SHORT,
            seen,
            "ask for less with --min-ttl, or ask again when the token is used up",
        )
    }
}

impl Trouble {
    /// Returns what callers are told while the platform wants to be left alone.
    fn barred(&self, now: Steady) -> Option<Refusal> {
        let until = self.barred_until.filter(|until| *until > now)?;
        Some(Refusal { problem: self.problem.clone(), retry_after: Some(until.since(now)) })
    }

    /// Returns how to try again: a 403 may mean that the source has a newer key.
    fn mode(&self) -> Mode {
        if self.forbidden > 0 { Mode::Reread } else { Mode::Held }
    }
}

fn refuse<W>(caller: W, refusal: Refusal) -> Effect<W> {
    Effect::Answer(caller, Box::new(Err(refusal)))
}

/// Whether the agent tries again by itself after this, sooner than a probe.
fn tries_again(problem: &Problem) -> bool {
    matches!(
        problem.code,
        ErrorCode::UNREACHABLE
            | ErrorCode::THROTTLED
            | ErrorCode::SOURCE_UNAVAILABLE
            | ErrorCode::CONFIG
            | ErrorCode::FAILED
    )
}

fn is_new_enough(held: &Bought, need: &Need) -> bool {
    need.sent_since.is_none_or(|since| held.sent >= since)
}

fn warning(problem: &Problem) -> Option<Warning> {
    (problem.code == ErrorCode::KEY_REFUSED).then_some(Warning::KEY_REFUSED)
}

fn still_rejected() -> Problem {
    Problem::new(
        ErrorCode::STILL_REJECTED,
        "the platform sold the same token again that it had refused",
        "the token is good but this call is not allowed with it, or the platform's caches need a moment",
    )
}

#[cfg(test)]
mod tests;
