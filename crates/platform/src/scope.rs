//! What an MCSP token is good for.

use std::{fmt, str::FromStr};

use crate::text::is_path_segment;

const COLLECTIONS: [&str; 3] = ["accounts", "subscriptions", "services"];

/// Names an account, a subscription or a service, as in `services/1234`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    collection: &'static str,
    id: String,
}

/// Says how a scope is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is `accounts/ID`, `subscriptions/ID` or `services/ID`")]
pub struct ScopeError;

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let (collection, id) = text.split_once('/').ok_or(ScopeError)?;
        let collection = COLLECTIONS.into_iter().find(|&known| known == collection).ok_or(ScopeError)?;
        if !is_path_segment(id) {
            return Err(ScopeError);
        }
        Ok(Self { collection, id: id.to_owned() })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection, self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_a_collection_and_an_id() {
        for good in ["accounts/20240101-ab_c", "subscriptions/1", "services/crn:v1:x"] {
            assert_eq!(good.parse::<Scope>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "accounts",
            "accounts/",
            "users/1",
            "services/..",
            "services/a/b",
            "services/a?b",
            "services/ä",
        ] {
            assert_eq!(bad.parse::<Scope>(), Err(ScopeError), "{bad}");
        }
    }
}
