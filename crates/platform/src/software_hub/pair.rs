//! A user name and a key in one header, as `Basic` and `ZenApiKey` have them.

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{ApiKey, HeaderText, answer::joined};

/// Returns the value of the `Authorization` header by which Software Hub takes the key itself, without
/// any exchange: `ZenApiKey` and `username:key` in standard Base64.
///
/// IBM's documentation pipes the pair through `echo`, so that a line break is encoded with it; servers
/// put up with that one, and this one has none.
pub fn zen_header(username: &str, key: &ApiKey) -> HeaderText {
    // Base64 is ASCII: as many characters as bytes, for which there is room from the start.
    HeaderText::new(encoded("ZenApiKey ", username, key).iter().copied().map(char::from).collect())
}

/// Returns `scheme` and the pair in Base64, put together at once in their last place.
#[expect(clippy::expect_used, reason = "the room is made for just this text")]
pub(super) fn encoded(scheme: &str, username: &str, key: &ApiKey) -> Zeroizing<Vec<u8>> {
    let pair = joined(&[username, ":", key.expose()]);
    let mut value = Zeroizing::new(vec![0; scheme.len() + pair.len().div_ceil(3) * 4]);
    let (head, tail) = value.split_at_mut(scheme.len());
    head.copy_from_slice(scheme.as_bytes());
    STANDARD.encode_slice(&*pair, tail).expect("four bytes for every three");
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zen_header_is_the_documented_one_without_a_line_break() {
        let key = ApiKey::new("s3cret-api-key".into());
        assert_eq!(zen_header("alice", &key).expose(), "ZenApiKey YWxpY2U6czNjcmV0LWFwaS1rZXk=");
        assert_eq!(zen_header("jürgen", &ApiKey::new("k~?".into())).expose(), "ZenApiKey asO8cmdlbjprfj8=");
        assert!(!format!("{:?}", zen_header("alice", &key)).contains("YWxp"));
    }

    #[test]
    fn every_length_of_a_pair_fills_its_room() {
        for len in 1..9 {
            let value = encoded("Basic ", "u", &ApiKey::new("k".repeat(len)));
            let decoded = STANDARD.decode(&value[6..]).unwrap();
            assert_eq!(decoded, format!("u:{}", "k".repeat(len)).into_bytes());
            assert_eq!(value.len(), value.capacity());
        }
    }
}
