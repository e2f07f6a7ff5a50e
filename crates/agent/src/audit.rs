//! The audit log: every hand-out is accounted for. AUDIT.md is the specification of the files.
//!
//! [`record`] says what a line is, [`chain`] how lines hang together, [`mod@file`] where they are, [`writer`] who
//! writes them, [`account`] what of a request is recorded, and [`read`] how they are read again.

pub mod account;
pub mod chain;
pub mod file;
mod lost;
pub mod read;
pub mod record;
pub mod time;
pub mod writer;

pub use record::{Decision, Entry, Event, Mode, TokenDigest};
pub use writer::Audit;
