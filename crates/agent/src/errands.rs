//! Requests that change something, carried out to their end whether or not their caller stays for the answer.
//!
//! Cut off in the middle, one would leave a file written that the agent does not go by, or a change that the audit log
//! does not know of: whoever hangs up at the right moment would choose which.

use std::time::Duration;

use dph_agent_protocol::{ErrorCode, Request};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::error::Problem;

/// How long the agent's end waits for those whose callers have gone.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether a request is to be carried out to its end. The others read, or wait for what the vault does anyway, and
/// are left when nobody wants their answer any more.
pub fn is_errand(request: &Request) -> bool {
    match request {
        Request::Add(_)
        | Request::AddFor(_)
        | Request::SetDefault(_)
        | Request::Forget(_)
        | Request::Remove(_)
        | Request::Lock(_)
        | Request::Unlock(_)
        | Request::Migrate(_)
        | Request::MigrateWith(_)
        | Request::Revoke(_)
        | Request::Rotate(_)
        | Request::Approve(_)
        | Request::Deny(_)
        | Request::Stop => true,
        Request::Ping
        | Request::Ready(_)
        | Request::Token(_)
        | Request::List(_)
        | Request::Status(_)
        | Request::Prepare(_)
        | Request::Refresh(_)
        | Request::LockState
        | Request::AuditState
        | Request::Zen(_)
        | Request::Pending(_)
        | Request::Explain(_) => false,
    }
}

/// The ones under way.
#[derive(Clone, Debug, Default)]
pub struct Errands(TaskTracker);

impl Errands {
    /// Carries one out. It goes on when nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// Why it failed; a mistake of ours is one, too.
    pub async fn carry_out<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let ended = self.0.spawn(work).await;
        ended.map_err(|_panicked| {
            let message = "the request failed inside the agent";
            Problem::new(ErrorCode::FAILED, message, "its log says more")
        })?
    }

    /// Waits for those that are under way when the agent ends, though not for ever.
    pub async fn finish(&self) {
        self.0.close();
        if timeout(FINISH_TIMEOUT, self.0.wait()).await.is_err() {
            warn!(open = self.0.len(), "stopped in the middle of requests that change something");
        }
    }
}
