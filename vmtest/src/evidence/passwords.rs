//! Keeps the passwords of addresses out of what is written down.

use std::{borrow::Cow, sync::OnceLock};

use regex::Regex;

/// Who somebody is at an address, and by which password. A token can stand alone in the place of the user.
const PATTERN: &str = r#"(?i)\b([a-z][a-z0-9+.-]*://)[^/?#\s"'`\\<>]*@"#;
/// What is written in their place.
const HIDDEN: &str = "${1}***@";

/// The text without users and passwords of addresses: `https://***@host/path`. It may be JSON, and stays that.
pub(super) fn without_passwords(text: &str) -> Cow<'_, str> {
    static COMPILED: OnceLock<Regex> = OnceLock::new();
    // Nearly no line has one, and it is seen at once.
    if !text.contains("://") || !text.contains('@') {
        return Cow::Borrowed(text);
    }
    COMPILED.get_or_init(|| Regex::new(PATTERN).expect("a pattern of ours")).replace_all(text, HIDDEN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_passwords_of_addresses_are_hidden() {
        for (text, shown) in [
            ("cannot reach http://me:pa@ss@proxy:3128: refused", "cannot reach http://***@proxy:3128: refused"),
            (r#"{"image":"https://token@host/a.img"}"#, r#"{"image":"https://***@host/a.img"}"#),
            (r#"["a://b:c@d","e://f:g@h"]"#, r#"["a://***@d","e://***@h"]"#),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }

    #[test]
    fn everything_else_is_as_it_was() {
        for text in
            ["me@host", "http://host/a@b", "http://host?to=a@b", "see http://host, or ask me@host", "\"a://\",\"b@c\""]
        {
            assert_eq!(without_passwords(text), text);
        }
    }
}
