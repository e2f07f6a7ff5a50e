//! Texts that must not be printed, and are wiped when dropped.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// What an exchange bought.
#[derive(Debug, PartialEq)]
pub struct Token {
    /// The bearer token itself: visible ASCII, not empty.
    pub value: TokenText,
    /// The life that it had when the answer was made, more than none and at most a year; `None` when
    /// nothing believable was told about it. To be counted from when the request was sent.
    pub life: Option<Duration>,
}

macro_rules! secret_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name(Zeroizing<String>);

        impl $name {
            /// Takes the text over; it is wiped when this is dropped.
            pub fn new(text: String) -> Self {
                Self(Zeroizing::new(text))
            }

            /// Returns the secret text.
            pub fn expose(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "([REDACTED])"))
            }
        }
    };
}

secret_text! {
    /// A long-lived secret that buys tokens.
    ApiKey
}

secret_text! {
    /// The text of a bearer token.
    TokenText
}

secret_text! {
    /// The value of an `Authorization` header.
    HeaderText
}

impl ApiKey {
    /// A line break read along with a key would be sent escaped, and refused for no visible reason.
    pub(crate) fn is_sendable(&self) -> bool {
        !self.0.is_empty() && !self.0.chars().any(char::is_control)
    }
}

impl TokenText {
    /// Whether it can stand in an `Authorization` header, and nothing can follow it there.
    pub(crate) fn is_header_safe(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_printed() {
        let key = ApiKey::new("s3cret".into());
        let token = Token { value: TokenText::new("s3cret".into()), life: None };
        assert!(!format!("{key:?} {token:?}").contains("s3cret"));
        assert_eq!(key.expose(), "s3cret");
    }

    #[test]
    fn equal_texts_are_equal_secrets() {
        assert_eq!(ApiKey::new("a".into()), ApiKey::new("a".into()));
        assert_ne!(ApiKey::new("a".into()), ApiKey::new("b".into()));
        assert_ne!(ApiKey::new("a".into()), ApiKey::new("ab".into()));
    }

    #[test]
    fn a_key_with_a_line_break_is_not_sendable() {
        assert!(ApiKey::new("a+/=§".into()).is_sendable());
        for bad in ["", "a\n", "a\r\n", "a\0b", "\u{85}"] {
            assert!(!ApiKey::new(bad.into()).is_sendable(), "{bad:?}");
        }
    }
}
