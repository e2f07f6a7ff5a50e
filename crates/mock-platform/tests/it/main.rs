//! The mock platform, talked to over TLS.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod binary;
mod client;
mod faults;
mod keys;
mod platforms;
