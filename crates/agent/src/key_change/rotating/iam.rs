//! Rotation at IBM Cloud.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use dph_agent_platform::{ApiKey, CallError, Deletion, IamKeys, KeyDetails, KeyId, NewKey, PlatformError};
use dph_agent_protocol::ErrorCode;
use ring::rand::{SecureRandom as _, SystemRandom};
use zeroize::Zeroizing;

use super::super::platform::{Bearer, Works, told};
use super::super::worker::Halt;
use super::{Report, Rotation, rotated};
use crate::error::Problem;

/// Random bytes of a key; in Base64 it is as long as those that IBM makes.
const KEY_LEN: usize = 33;

impl Rotation<'_> {
    pub(super) async fn at_iam(&mut self, calls: &IamKeys<'_>) -> Result<Report, Halt> {
        let key = self.key.key.expose();
        if self.record.made.is_some()
            && let Some(newer) = self.newer_in_source(&key).await?
        {
            // An earlier try put it there, or the user; which one it was, the next try sees.
            self.use_it(&newer, None).await?;
            return Err(Halt::Later(self.has_moved_on()));
        }
        let Works::Yes(bearer) = self.probe(&key).surely_works().await? else {
            return Err(self.not_current());
        };
        let details = calls.details(&bearer.token, &key).await.map_err(|error| self.later(&error))?;
        if let Some(made) = self.record.made.clone() {
            if details.name == made {
                return self.delete_old(calls, &bearer).await;
            }
            self.clear_up(calls, &bearer, &details, &made).await?;
            if !self.is_old(&key) {
                return Err(Halt::Over(self.is_another()));
            }
        }
        if details.locked {
            return Err(Halt::Over(self.is_locked(&details.name)));
        }
        self.replace(calls, &bearer, &details).await
    }

    /// Deletes what an earlier try made, whose value nobody knows any more: first it must be in no place.
    async fn clear_up(
        &mut self,
        calls: &IamKeys<'_>,
        bearer: &Bearer,
        own: &KeyDetails,
        made: &str,
    ) -> Result<(), Halt> {
        self.restore().await?;
        let left = calls.find(&bearer.token, &own.account_id, &own.iam_id, made).await;
        for key in left.map_err(|error| self.later(&error))? {
            calls.delete(&bearer.token, &key.id).await.map_err(|error| self.later(error.platform_error()))?;
        }
        self.forget_made().await
    }

    async fn replace(
        &mut self,
        calls: &IamKeys<'_>,
        bearer: &Bearer,
        own: &KeyDetails,
    ) -> Result<Report, Halt> {
        self.tools.may_go_on().map_err(Halt::Later)?;
        let new = random_key()?;
        let name = format!("dph-agent {} {:016x}", self.profile.name, fastrand::u64(..));
        (self.record.made, self.record.old_id) = (Some(name.clone()), Some(own.id.to_string()));
        self.record.sent = 1;
        if let Err(problem) = self.save().await {
            (self.record.made, self.record.old_id, self.record.sent) = (None, None, 0);
            return Err(problem.into());
        }
        let id = self.make(calls, bearer, own, &name, &new).await?;
        let proof = match self.probe(&new).begins_working().await? {
            Works::Yes(proof) => proof,
            Works::No => return Err(self.undo(calls, bearer, &id, "the new key does not work").await),
        };
        if let Err(problem) = self.keep(&new).await {
            // Perhaps it was written all the same: the old one goes back before the new one is deleted.
            self.restore().await?;
            return Err(self.undo(calls, bearer, &id, &problem.message).await);
        }
        let deleter = proof.copy();
        self.use_it(&new, Some(proof)).await?;
        self.delete_old(calls, &deleter).await
    }

    /// Makes the new key, and returns how the platform calls it.
    async fn make(
        &mut self,
        calls: &IamKeys<'_>,
        bearer: &Bearer,
        own: &KeyDetails,
        name: &str,
        key: &ApiKey,
    ) -> Result<KeyId, Halt> {
        let description = "made by dph-agent in place of another one";
        let (iam_id, account_id) = (own.iam_id.as_str(), own.account_id.as_str());
        let expires_at = own.end_of_successor(self.tools.surroundings.clock.wall());
        let new = NewKey { name, description, iam_id, account_id, key, expires_at };
        match calls.create(&bearer.token, &new).await {
            Ok(made) => Ok(made.id),
            Err(CallError::NotSent(error)) => {
                self.forget_made().await?;
                Err(self.later(&error))
            }
            Err(CallError::Refused(error)) => {
                self.forget_made().await?;
                let problem = told(&error, self.profile, self.tools);
                Err(Halt::Over(self.old_goes_on(&problem.message)))
            }
            Err(CallError::Unclear(error)) => {
                let found = calls.find(&bearer.token, account_id, iam_id, name).await;
                let found = found.ok().and_then(|found| found.into_iter().next());
                found.map(|key| key.id).ok_or_else(|| self.later(&error))
            }
        }
    }

    /// Deletes the new key again; where that cannot be done now, the next try does it.
    async fn undo(&mut self, calls: &IamKeys<'_>, bearer: &Bearer, id: &KeyId, why: &str) -> Halt {
        if let Err(error) = calls.delete(&bearer.token, id).await {
            return self.later(error.platform_error());
        }
        match self.forget_made().await {
            Ok(()) => Halt::Over(self.old_goes_on(why)),
            Err(halt) => halt,
        }
    }

    /// Deletes the old key; the new one is in its place and works.
    async fn delete_old(&mut self, calls: &IamKeys<'_>, bearer: &Bearer) -> Result<Report, Halt> {
        let Some(Ok(old)) = self.record.old_id.as_deref().map(str::parse::<KeyId>) else {
            return Ok(rotated(Vec::new()));
        };
        match calls.delete(&bearer.token, &old).await {
            Ok(Deletion::Done | Deletion::GoneBefore) => Ok(rotated(Vec::new())),
            Err(CallError::Refused(
                error @ (PlatformError::Throttled { .. } | PlatformError::Refused { .. }),
            )) => Err(self.later(&error)),
            Err(CallError::Refused(error)) => {
                let problem = told(&error, self.profile, self.tools);
                let note = format!(
                    "the old key `{old}` is still valid, for the platform did not delete it: {}; delete it there yourself",
                    problem.message
                );
                Ok(rotated(vec![note]))
            }
            Err(CallError::NotSent(error) | CallError::Unclear(error)) => Err(self.later(&error)),
        }
    }

    async fn forget_made(&mut self) -> Result<(), Halt> {
        (self.record.made, self.record.old_id, self.record.sent) = (None, None, 0);
        Ok(self.save().await?)
    }

    fn later(&self, error: &PlatformError) -> Halt {
        Halt::Later(told(error, self.profile, self.tools))
    }

    pub(super) fn old_goes_on(&self, why: &str) -> Problem {
        Problem::new(
            ErrorCode::FAILED,
            format!("the key of profile `{}` was not rotated, and goes on working: {why}", self.profile.name),
            "mend the cause, then rotate it again",
        )
    }

    fn has_moved_on(&self) -> Problem {
        Problem::new(
            ErrorCode::SOURCE_UNAVAILABLE,
            format!("another key lies in the place of that of profile `{}`", self.profile.name),
            "the agent uses it and goes on",
        )
    }

    fn is_another(&self) -> Problem {
        let name = &self.profile.name;
        Problem::new(
            ErrorCode::FAILED,
            format!(
                "profile `{name}` has another key now than when its key was to be rotated: it was not touched"
            ),
            format!("if it is to be rotated, too: dph-agent-client rotate --profile {name}"),
        )
    }

    fn is_locked(&self, key: &str) -> Problem {
        Problem::new(
            ErrorCode::DENIED,
            format!(
                "IBM Cloud would not delete the old key `{key}` of profile `{}`: it is locked there",
                self.profile.name
            ),
            "unlock it (Manage > Access (IAM) > API keys, or `ibmcloud iam api-key-unlock`), then rotate it again",
        )
    }
}

fn random_key() -> Result<ApiKey, Problem> {
    let mut bytes = Zeroizing::new([0; KEY_LEN]);
    SystemRandom::new().fill(&mut *bytes).map_err(|_unspecified| {
        Problem::new(ErrorCode::FAILED, "the system has no random numbers", "look at the system")
    })?;
    // Room for all of it, so that no part is left behind by a move.
    let mut text = String::with_capacity(KEY_LEN.div_ceil(3) * 4);
    BASE64_URL_SAFE_NO_PAD.encode_string(*bytes, &mut text);
    Ok(ApiKey::new(text))
}
