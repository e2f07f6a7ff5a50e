//! The JSON of `apikeys/token`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TokenText;

#[derive(Serialize)]
pub(super) struct Exchange<'a> {
    pub(super) apikey: &'a str,
}

#[derive(Deserialize)]
pub(super) struct Exchanged {
    pub(super) token: Option<TokenText>,
    #[serde(default)]
    pub(super) expires_in: Value,
    #[serde(default)]
    pub(super) expiration: Value,
}
