//! Just enough JSON to write an answer.

use crate::time::rfc3339;
use crate::wiped::Wiped;

/// A JSON document in the making. An empty key stands for none, as in an array.
pub(crate) struct Json(Wiped);

impl Json {
    /// Returns an empty document with room for `capacity` bytes. One that holds a secret must not
    /// outgrow it, for growing leaves a copy behind.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self(Wiped(Vec::with_capacity(capacity)))
    }

    /// Opens an object.
    pub(crate) fn object(&mut self, key: &str) -> &mut Self {
        self.key(key).push("{")
    }

    /// Opens an array.
    pub(crate) fn array(&mut self, key: &str) -> &mut Self {
        self.key(key).push("[")
    }

    /// Closes what was opened last, which `bracket` must fit.
    pub(crate) fn close(&mut self, bracket: &str) -> &mut Self {
        self.push(bracket)
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key).quoted(value)
    }

    /// Adds a text or `null`.
    pub(crate) fn optional_text(&mut self, key: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(key, value),
            None => self.key(key).push("null"),
        }
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, key: &str, value: u64) -> &mut Self {
        self.key(key).push(&value.to_string())
    }

    /// Adds a number or `null`.
    pub(crate) fn optional_number(&mut self, key: &str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.number(key, value),
            None => self.key(key).push("null"),
        }
    }

    /// Adds `true` or `false`.
    pub(crate) fn boolean(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key).push(if value { "true" } else { "false" })
    }

    /// Adds a time in seconds since 1970, or `null`.
    pub(crate) fn time(&mut self, key: &str, seconds: Option<i64>) -> &mut Self {
        self.optional_text(key, seconds.map(rfc3339).as_deref())
    }

    /// Returns the document with a newline behind it.
    pub(crate) fn finish(mut self) -> Wiped {
        self.push("\n");
        self.0
    }

    fn key(&mut self, key: &str) -> &mut Self {
        if !matches!(self.0.last(), None | Some(b'{' | b'[')) {
            self.push(",");
        }
        if key.is_empty() { self } else { self.quoted(key).push(":") }
    }

    fn quoted(&mut self, text: &str) -> &mut Self {
        self.push("\"");
        for c in text.chars() {
            match c {
                '"' => self.push("\\\""),
                '\\' => self.push("\\\\"),
                '\n' => self.push("\\n"),
                _ if c.is_control() => self.push(&format!("\\u{:04x}", u32::from(c))),
                _ => self.push(c.encode_utf8(&mut [0; 4])),
            };
        }
        self.push("\"")
    }

    fn push(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Json)) -> String {
        let mut json = Json::with_capacity(0);
        write(&mut json);
        String::from_utf8(json.finish().to_vec()).unwrap()
    }

    #[test]
    fn members_are_separated_and_nested() {
        let text = written(|json| {
            json.object("").object("a").number("n", 7).boolean("yes", true).close("}");
            json.array("list").object("").close("}").object("").text("x", "").close("}").close("]");
            json.optional_text("none", None).time("at", Some(0)).close("}");
        });
        let expected =
            r#"{"a":{"n":7,"yes":true},"list":[{},{"x":""}],"none":null,"at":"1970-01-01T00:00:00Z"}"#;
        assert_eq!(text, format!("{expected}\n"));
    }

    #[test]
    fn text_is_escaped() {
        let text = written(|json| {
            json.text("", "a\"b\\c\nd\u{1b}[0m\u{85}é{");
        });
        assert_eq!(text, "\"a\\\"b\\\\c\\nd\\u001b[0m\\u0085é{\"\n");
    }

    #[test]
    fn text_that_ends_like_an_opening_bracket_is_still_followed_by_a_comma() {
        let text = written(|json| {
            json.array("").text("", "{").text("", "[").close("]");
        });
        assert_eq!(text, "[\"{\",\"[\"]\n");
    }
}
