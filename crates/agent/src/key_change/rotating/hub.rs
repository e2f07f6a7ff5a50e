//! Rotation at Software Hub.

use dph_agent_platform::{ApiKey, CallError, HubKeys, PlatformError, TokenText};
use dph_agent_protocol::ErrorCode;

use super::super::platform::{Works, told, unsupported};
use super::super::worker::Halt;
use super::{Report, Rotation, rotated};
use crate::error::Problem;
use crate::key_source::Aside;
use crate::seal::SealedPrivate;

/// Calls that make a key, for one wish.
const MOST_CALLS: u8 = 2;
/// How long, in seconds, a lost answer is made up for: a key that is made elsewhere later is not ours to end.
const ASK_AGAIN_FOR: u64 = 10 * 60;

impl Rotation<'_> {
    pub(super) async fn at_hub(&mut self, calls: &HubKeys<'_>) -> Result<Report, Halt> {
        let key = self.key.key.expose();
        if self.record.sent > 0 {
            return self.after_a_call(calls, &key).await;
        }
        let Works::Yes(bearer) = self.probe(&key).surely_works().await? else {
            return Err(self.not_current());
        };
        self.put_aside(&bearer.token).await?;
        self.generate(calls, &bearer.token).await
    }

    /// Goes on where a try before this one was cut off.
    async fn after_a_call(&mut self, calls: &HubKeys<'_>, key: &ApiKey) -> Result<Report, Halt> {
        if !self.is_old(key) {
            return self.finish(key).await;
        }
        if self.probe(key).stops_working(false).await? {
            return self.make_up(calls, key).await;
        }
        // In all that time the call was not carried out.
        match self.probe(key).works().await? {
            Works::Yes(bearer) => self.generate(calls, &bearer.token).await,
            Works::No => Err(Halt::Later(self.is_unclear())),
        }
    }

    /// Makes up for a lost answer: the old key is dead, and nobody knows the new one.
    async fn make_up(&mut self, calls: &HubKeys<'_>, old: &ApiKey) -> Result<Report, Halt> {
        if let Some(newer) = self.newer_in_source(old).await? {
            return self.finish(&newer).await;
        }
        match self.aside().await? {
            Some(aside) if self.is_recent() => self.generate(calls, &aside.bearer).await,
            Some(_) => {
                Err(self.lost("so much time has passed that another one may have been made elsewhere"))
            }
            None => Err(self.lost("no token was kept that could ask once more")),
        }
    }

    /// Whether the last call is so recent that the key which it made is most likely the one that is valid.
    fn is_recent(&self) -> bool {
        let now = self.tools.surroundings.clock.wall();
        self.record.sent_at.is_some_and(|sent| now.abs_diff(sent) <= ASK_AGAIN_FOR)
    }

    async fn put_aside(&self, bearer: &TokenText) -> Result<(), Halt> {
        let aside = Aside::new(bearer);
        let (_, to) = self.tools.vault.keys_place().await?;
        let (sealed, to) = (&self.tools.surroundings.sealed, to.as_ref().map(SealedPrivate::public));
        let kept = self.profile.key_source.put_aside(self.profile, &aside, sealed, to).await;
        kept.map_err(Problem::from)?;
        self.tools.offer(&self.profile.name, aside);
        Ok(())
    }

    /// Returns what was put aside, by this agent or one before it.
    async fn aside(&self) -> Result<Option<Aside>, Problem> {
        let (source, name) = (&self.profile.key_source, &self.profile.name);
        if let Some(aside) = self.tools.asides.of(name) {
            return Ok(Some(aside));
        }
        Ok(source.read_aside(self.profile, &self.tools.surroundings.sealed).await?)
    }

    /// Asks for another key, and puts it in the place of the old one.
    async fn generate(&mut self, calls: &HubKeys<'_>, bearer: &TokenText) -> Result<Report, Halt> {
        if self.record.sent >= MOST_CALLS {
            return self.refused(&format!("{MOST_CALLS} calls for another key brought none")).await;
        }
        self.tools.may_go_on().map_err(Halt::Later)?;
        self.count().await?;
        match calls.generate(bearer).await {
            Ok(generated) => self.switch(&generated.key).await,
            Err(CallError::NotSent(error) | CallError::Refused(error @ PlatformError::Throttled { .. })) => {
                self.record.sent -= 1;
                self.save().await?;
                Err(Halt::Later(told(&error, self.profile, self.tools)))
            }
            Err(CallError::Refused(error)) => {
                let why = told(&error, self.profile, self.tools).message;
                self.refused(&why).await
            }
            Err(CallError::Unclear(error)) => Err(Halt::Later(told(&error, self.profile, self.tools))),
        }
    }

    /// Writes down that a call is about to be made.
    async fn count(&mut self) -> Result<(), Problem> {
        let before = (self.record.sent, self.record.sent_at);
        self.record.sent += 1;
        self.record.sent_at = Some(self.tools.surroundings.clock.wall());
        let saved = self.save().await;
        if saved.is_err() {
            (self.record.sent, self.record.sent_at) = before;
        }
        saved
    }

    /// Keeps the new key: first where it outlives the agent, for it is told this once.
    async fn switch(&self, new: &ApiKey) -> Result<Report, Halt> {
        let kept = self.keep(new).await;
        self.use_it(new, None).await?;
        kept?;
        self.finish(new).await
    }

    /// Proves the new key, which is in its place.
    async fn finish(&self, new: &ApiKey) -> Result<Report, Halt> {
        // Perhaps the agent before this one had no time for it.
        self.keep(new).await?;
        match self.probe(new).begins_working().await? {
            Works::Yes(proof) => self.use_it(new, Some(proof)).await?,
            Works::No => {
                return Err(
                    self.lost("the platform refuses the one that it made: another may have been made since")
                );
            }
        }
        self.clear_aside().await?;
        Ok(rotated(Vec::new()))
    }

    async fn clear_aside(&self) -> Result<(), Problem> {
        self.tools.asides.forget(&self.profile.name);
        let sealed = &self.tools.surroundings.sealed;
        Ok(self.profile.key_source.clear_aside(self.profile, sealed).await?)
    }

    /// The platform said no; whether the old key is alive tells what that means.
    async fn refused(&mut self, why: &str) -> Result<Report, Halt> {
        let key = self.key.key.expose();
        match self.probe(&key).surely_works().await? {
            Works::Yes(_) => {
                self.clear_aside().await?;
                Err(Halt::Over(Problem {
                    code: ErrorCode::UNSUPPORTED,
                    hint: unsupported("rotating the key", self.profile).hint,
                    ..self.old_goes_on(why)
                }))
            }
            Works::No => Err(self.lost(why)),
        }
    }

    fn is_unclear(&self) -> Problem {
        Problem::new(
            ErrorCode::UNREACHABLE,
            format!(
                "the platform takes the key of profile `{}` at times, and at times not",
                self.profile.name
            ),
            "the agent looks again",
        )
    }

    fn lost(&self, why: &str) -> Halt {
        Halt::Lost(Problem::new(
            ErrorCode::KEY_REFUSED,
            format!("the key of profile `{}` is lost: the old one is invalid, and {why}", self.profile.name),
            format!(
                "log in to {}, open the profile and settings of your user, choose API key and generate one; then: dph-agent-client add --profile {}",
                self.profile.url, self.profile.name
            ),
        ))
    }
}
