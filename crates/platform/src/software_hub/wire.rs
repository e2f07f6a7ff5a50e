//! The JSON of Software Hub's calls.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ApiKey, TokenText};

#[derive(Serialize)]
pub(super) struct Authorize<'a> {
    pub(super) username: &'a str,
    pub(super) api_key: &'a str,
}

/// `_messageCode_` and `message` are not read: releases fill them differently.
#[derive(Deserialize)]
pub(super) struct Authorized {
    pub(super) token: Option<TokenText>,
    /// How one page of the documentation calls it.
    #[serde(rename = "accessToken")]
    pub(super) access_token: Option<TokenText>,
}

/// The answer of a service instance.
#[derive(Deserialize)]
pub(super) struct Instance {
    pub(super) data: Option<InstanceData>,
}

#[derive(Deserialize)]
pub(super) struct InstanceData {
    pub(super) token: Option<TokenText>,
}

/// The answer of `/usermgmt/v1/user/apiKey`.
#[derive(Deserialize)]
pub(super) struct Generated {
    #[serde(rename = "apiKey")]
    pub(super) api_key: Option<ApiKey>,
    #[serde(default)]
    pub(super) expire_at: Value,
}

#[derive(Deserialize)]
pub(super) struct Failed {
    pub(super) code: u16,
}
