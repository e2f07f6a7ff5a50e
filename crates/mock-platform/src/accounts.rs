//! Who may buy tokens with which key.

use std::collections::{HashMap, HashSet};

use crate::random;

/// The only user of IBM Cloud here; all its keys are theirs.
pub(crate) const IAM_ID: &str = "IBMid-5500000000";

/// The account that this user works in.
pub(crate) const ACCOUNT_ID: &str = "00000000000000000000000000000000";

/// The keys of every platform.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// Software Hub has one key per user.
    hub_users: HashMap<String, String>,
    /// IBM Cloud has as many as the user likes, in order of their making.
    pub(crate) iam_keys: Vec<IamKey>,
    mcsp_keys: HashSet<String>,
}

/// A key of IBM Cloud.
#[derive(Clone, Debug)]
pub(crate) struct IamKey {
    pub(crate) id: String,
    pub(crate) value: String,
    pub(crate) name: String,
    pub(crate) description: String,
    /// As it was given when the key was made.
    pub(crate) expires_at: Option<String>,
    pub(crate) locked: bool,
    pub(crate) disabled: bool,
}

impl IamKey {
    pub(crate) fn new(name: &str, value: &str) -> Self {
        Self {
            id: format!("ApiKey-{}", random::uuid()),
            value: value.to_owned(),
            name: name.to_owned(),
            description: String::new(),
            expires_at: None,
            locked: false,
            disabled: false,
        }
    }
}

impl Accounts {
    pub(crate) fn add_hub_user(&mut self, username: &str, api_key: &str) {
        self.hub_users.insert(username.to_owned(), api_key.to_owned());
    }

    /// Adds a key and returns its id.
    pub(crate) fn add_iam_key(&mut self, key: IamKey) -> String {
        let id = key.id.clone();
        self.iam_keys.push(key);
        id
    }

    pub(crate) fn add_mcsp_key(&mut self, api_key: &str) {
        self.mcsp_keys.insert(api_key.to_owned());
    }

    pub(crate) fn is_hub_user(&self, username: &str) -> bool {
        self.hub_users.contains_key(username)
    }

    pub(crate) fn is_hub_key(&self, username: &str, api_key: &str) -> bool {
        self.hub_users.get(username).is_some_and(|known| known == api_key)
    }

    pub(crate) fn iam_key(&self, api_key: &str) -> Option<&IamKey> {
        self.iam_keys.iter().find(|key| key.value == api_key)
    }

    pub(crate) fn iam_key_mut(&mut self, api_key: &str) -> Option<&mut IamKey> {
        self.iam_keys.iter_mut().find(|key| key.value == api_key)
    }

    pub(crate) fn is_mcsp_key(&self, api_key: &str) -> bool {
        self.mcsp_keys.contains(api_key)
    }

    /// Whether `api_key` buys tokens anywhere.
    pub(crate) fn is_valid(&self, api_key: &str) -> bool {
        self.hub_users.values().any(|known| known == api_key)
            || self.iam_key(api_key).is_some_and(|key| !key.disabled)
            || self.is_mcsp_key(api_key)
    }

    /// Makes `api_key` worthless wherever it is known.
    pub(crate) fn revoke(&mut self, api_key: &str) {
        self.hub_users.retain(|_, known| known != api_key);
        self.iam_keys.retain(|key| key.value != api_key);
        self.mcsp_keys.remove(api_key);
    }
}
