//! The JSON of `/icp4d-api/v1/authorize`.

use serde::{Deserialize, Serialize};

use crate::TokenText;

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

#[derive(Deserialize)]
pub(super) struct Failed {
    pub(super) code: u16,
}
