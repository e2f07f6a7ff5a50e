//! What each command asks the agent, and what it prints.

mod add;
mod agent;
mod beside;
mod change;
mod drop;
mod lock;
mod migrate;
mod policy;
mod profiles;
mod status;
mod token;

use crate::cli::Command;

/// Every command, in the order of the help text.
pub(crate) static ALL: &[Command] = &[
    token::TOKEN,
    add::ADD,
    profiles::LIST,
    status::STATUS,
    profiles::DEFAULT,
    profiles::REFRESH,
    lock::LOCK,
    lock::UNLOCK,
    policy::PENDING,
    policy::APPROVE,
    policy::DENY,
    policy::POLICY,
    drop::FORGET,
    drop::REMOVE,
    change::REVOKE,
    change::ROTATE,
    migrate::MIGRATE,
    beside::AUDIT,
    agent::PING,
    agent::STOP,
    agent::VERSION,
];
