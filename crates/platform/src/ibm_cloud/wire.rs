//! The JSON of `/identity/token` and `/v1/apikeys`.

use serde::{Deserialize, Serialize};
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

/// A failure in either of IAM's forms: that of the tokens, or that of the keys.
#[derive(Default, Deserialize)]
pub(super) struct Failed {
    #[serde(rename = "errorCode")]
    error_code: Option<String>,
    #[serde(default)]
    errors: Vec<Fault>,
}

/// A failure of a call about keys, and nothing else.
#[derive(Deserialize)]
pub(super) struct Errors {
    #[serde(rename = "errors")]
    _errors: Vec<Fault>,
}

#[derive(Deserialize)]
struct Fault {
    message_code: Option<String>,
}

impl Failed {
    pub(super) fn code(&self) -> Option<&str> {
        let of_fault = || self.errors.first().and_then(|fault| fault.message_code.as_deref());
        self.error_code.as_deref().or_else(of_fault)
    }
}

#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) apikeys: Vec<Key>,
    /// The address of the next page.
    pub(super) next: Option<String>,
}

/// `apikey` is not read, though the answer to the making of a key repeats it.
#[derive(Deserialize)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) locked: Option<bool>,
    pub(super) disabled: Option<bool>,
    pub(super) iam_id: String,
    pub(super) account_id: String,
    pub(super) created_at: Option<String>,
    pub(super) expires_at: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Create<'a> {
    pub(super) name: &'a str,
    pub(super) description: &'a str,
    pub(super) iam_id: &'a str,
    pub(super) account_id: &'a str,
    pub(super) apikey: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
}
