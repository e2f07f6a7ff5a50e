//! The JSON of `/identity/token`.

use serde::Deserialize;
use serde_json::Value;

use crate::TokenText;

/// `refresh_token` is not read: IAM sends the words `not_supported` in it.
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: Option<TokenText>,
    #[serde(default)]
    pub(super) expires_in: Value,
    #[serde(default)]
    pub(super) expiration: Value,
}

#[derive(Default, Deserialize)]
pub(super) struct Failed {
    #[serde(rename = "errorCode")]
    pub(super) error_code: Option<String>,
}
