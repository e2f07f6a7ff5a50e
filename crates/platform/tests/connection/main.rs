//! How a key travels: to which server, which way, and seen by whom.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod proxy;
mod support;
mod trust;
