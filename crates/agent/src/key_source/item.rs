//! A key as it is kept where it outlives the agent: in JSON, together with what it was given for.

use std::borrow::Cow;

use dph_agent_platform::ApiKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::Found;
use crate::binding::Binding;

/// The form in which an item is written.
const FORM: u8 = 1;
/// Room for what JSON needs around key and binding.
const AROUND: usize = 64;

#[derive(Serialize)]
struct Written<'a> {
    v: u8,
    key: &'a str,
    binding: &'a Binding,
}

#[derive(Deserialize)]
struct Read<'a> {
    v: u8,
    #[serde(borrow)]
    key: Cow<'a, str>,
    binding: Binding,
}

/// Returns the item's bytes.
pub(super) fn encode(key: &ApiKey, binding: &Binding) -> Zeroizing<Vec<u8>> {
    let written = Written { v: FORM, key: key.expose(), binding };
    // Room for all of it, so that no part is left behind by a move: JSON writes a byte with six at most.
    let room =
        6 * key.expose().len() + serde_json::to_vec(binding).map_or(0, |binding| binding.len()) + AROUND;
    let mut secret = Zeroizing::new(Vec::with_capacity(room));
    let written = serde_json::to_writer(&mut *secret, &written).is_ok();
    debug_assert!(written, "text and numbers can always be written to memory");
    secret
}

/// Reads an item; `None` where no version of this program that is known here wrote it.
pub(super) fn decode(secret: &[u8]) -> Option<Found> {
    match serde_json::from_slice(secret) {
        Ok(Read { v: FORM, key, binding }) => {
            Some(Found { key: ApiKey::new(key.into_owned()), binding: Some(binding) })
        }
        Ok(_) | Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound() -> Binding {
        serde_json::from_str(
            r#"{"platform":"ibm-cloud","origin":"https://iam.example","username":null,"roots":[]}"#,
        )
        .unwrap()
    }

    #[test]
    fn the_written_form_moves_nowhere_while_it_is_written() {
        let key = ApiKey::new("\u{1}".repeat(1000));
        let secret = encode(&key, &bound());
        assert_eq!(decode(&secret).unwrap().key, key);
        let binding = serde_json::to_vec(&bound()).unwrap().len();
        assert_eq!(secret.capacity(), 6 * 1000 + binding + AROUND, "it grew");
    }

    #[test]
    fn an_item_of_another_hand_or_version_is_none() {
        for text in [
            "the-key",
            "{}",
            "{\"v\":2,\"key\":\"the-key\"}",
            "{\"v\":1,\"key\":\"the-key\"}",
            "{\"v\":1,\"key\":\"the-key\",\"binding\":{}}",
        ] {
            assert!(decode(text.as_bytes()).is_none(), "{text}");
        }
    }
}
