//! A system or a build without logind.

use tokio::sync::watch;

use super::{Ended, Report, changed};
use crate::lock::LockOn;

/// Why the agent would not notice what is to lock it.
#[derive(Debug, thiserror::Error)]
pub enum LogindError {
    /// Nobody can tell it.
    #[error("this agent was built without logind, and would not notice it")]
    Absent,
}

impl LogindError {
    /// Whether trying again is in vain.
    pub fn is_final(&self) -> bool {
        true
    }
}

pub(super) async fn listen(
    _: LockOn,
    wanted: &mut watch::Receiver<LockOn>,
    report: &mut Report<'_>,
) -> Ended {
    report.trouble(&LogindError::Absent);
    changed(wanted).await;
    Ended::Changed
}

/// Says that logind cannot be heard.
///
/// # Errors
///
/// Always.
pub fn probe(_: LockOn) -> impl Future<Output = Result<(), LogindError>> {
    std::future::ready(Err(LogindError::Absent))
}
