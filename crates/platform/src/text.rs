//! Text from outside, made fit to print.

/// Returns at most `limit` characters of `text`, each one that moves or hides others replaced.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    text.chars().take(limit).map(|c| if is_plain(c) { c } else { '?' }).collect()
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
