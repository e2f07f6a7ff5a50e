//! Rotation at Software Hub.

use dph_agent_platform::{ApiKey, CallError, HubKeys, PlatformError, TokenText};
use dph_agent_protocol::ErrorCode;

use super::super::platform::{Works, begins_working, surely_works, told, unsupported, works};
use super::super::worker::Halt;
use super::{Report, Rotation, rotated};
use crate::error::Problem;
use crate::key_source::{Aside, KeySource};
use crate::seal::SealedPrivate;

/// Calls that make a key, for one wish.
const MOST_CALLS: u8 = 2;

impl Rotation<'_> {
    pub(super) async fn at_hub(&mut self, calls: &HubKeys<'_>) -> Result<Report, Halt> {
        let key = self.key.key.expose();
        let state = surely_works(self.target, &key, self.profile, self.tools).await?;
        if self.record.sent == 0 {
            return match state {
                Works::Yes(bearer) => {
                    self.put_aside(&bearer.token, &key).await?;
                    self.generate(calls, &bearer.token).await
                }
                Works::No => Err(self.not_current()),
            };
        }
        match state {
            Works::Yes(_) if !self.is_old(&key) => self.finish(&key).await,
            // The call that was counted was not carried out.
            Works::Yes(bearer) => self.generate(calls, &bearer.token).await,
            // It was, and its answer is lost; unless somebody has put a newer key there since.
            Works::No => match self.newer_in_source(&key).await? {
                Some(newer) => self.finish(&newer).await,
                None => match self.aside().await? {
                    Some(aside) => self.generate(calls, &aside.bearer).await,
                    None => Err(self.lost("no token was kept that could ask once more")),
                },
            },
        }
    }

    /// Returns a key that lies in the source in place of the one in use, and works.
    async fn newer_in_source(&self, used: &ApiKey) -> Result<Option<ApiKey>, Halt> {
        let source = &self.profile.key_source;
        if *source == KeySource::Sealed {
            return Ok(None);
        }
        let read = source.read(self.profile, &self.tools.surroundings.sealed).await.map_err(Problem::from)?;
        let Some(key) = read.map(|found| found.key).filter(|key| key != used) else { return Ok(None) };
        match works(self.target, &key, self.profile, self.tools).await? {
            Works::Yes(_) => Ok(Some(key)),
            Works::No => Ok(None),
        }
    }

    async fn put_aside(&self, bearer: &TokenText, old: &ApiKey) -> Result<(), Problem> {
        let aside = Aside::new(bearer, old);
        let (_, to) = self.tools.vault.keys_place().await?;
        let (sealed, to) = (&self.tools.surroundings.sealed, to.as_ref().map(SealedPrivate::public));
        self.profile.key_source.put_aside(self.profile, &aside, sealed, to).await?;
        self.tools.asides.offer(&self.profile.name, aside);
        Ok(())
    }

    /// Returns what was put aside, by this agent or one before it.
    async fn aside(&self) -> Result<Option<Aside>, Problem> {
        match self.tools.asides.of(&self.profile.name) {
            Some(aside) => Ok(Some(aside)),
            None => Ok(self.profile.key_source.read_aside(self.profile).await?),
        }
    }

    /// Asks for another key, and puts it in the place of the old one.
    async fn generate(&mut self, calls: &HubKeys<'_>, bearer: &TokenText) -> Result<Report, Halt> {
        if self.record.sent >= MOST_CALLS {
            return self.given_up().await;
        }
        self.record.sent += 1;
        if let Err(problem) = self.save().await {
            self.record.sent -= 1;
            return Err(problem.into());
        }
        match calls.generate(bearer).await {
            Ok(generated) => self.switch(&generated.key).await,
            Err(CallError::NotSent(error)) => {
                self.record.sent -= 1;
                self.save().await?;
                Err(Halt::Later(told(&error, self.profile, self.tools)))
            }
            Err(CallError::Refused(error @ PlatformError::Throttled { .. })) => {
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
        match begins_working(self.target, new, self.profile, self.tools).await? {
            Works::Yes(proof) => self.use_it(new, Some(proof)).await?,
            Works::No => return Err(self.lost("the platform refuses the key that it has just made")),
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
        match surely_works(self.target, &key, self.profile, self.tools).await? {
            // Perhaps the new one, which could not be kept yet.
            Works::Yes(_) if !self.is_old(&key) => self.finish(&key).await,
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

    async fn given_up(&mut self) -> Result<Report, Halt> {
        self.refused(&format!("{MOST_CALLS} calls for another key brought none")).await
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
