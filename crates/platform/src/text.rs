//! Text from outside, made fit to print, or found fit for a path.

/// Returns at most `limit` characters of `text`, each one that moves or hides others replaced.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// Whether `id` can become part of a path: nothing in it ends its segment or climbs out of it.
pub(crate) fn is_path_segment(id: &str) -> bool {
    id.bytes().any(|byte| byte != b'.')
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte))
}

fn is_plain(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn what_could_move_or_hide_text_is_replaced() {
        assert_eq!(printable("CN=Jürgen, O=a\u{1b}[2J\r\n\u{202e}x", 100), "CN=Jürgen, O=a?[2J???x");
        assert_eq!(printable("abcdef", 3), "abc");
    }
}
