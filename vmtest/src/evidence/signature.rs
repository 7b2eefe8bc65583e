//! What two failures have in common that happened for the same reason.

use std::sync::OnceLock;

use regex::Regex;

use super::passwords::without_passwords;

/// What follows shows a console, which says something else each time.
const CONSOLE_MARK: &str = super::digest::CONSOLE_MARK;
/// What follows is said of each failure.
const DIGEST_MARK: &str = "first cause, ";
/// What is beyond belongs to the failure's circumstances.
const LINES: usize = 6;
/// What is different each time, and what it becomes. In this order: an address has numbers in it.
const DIFFERENT: [(&str, &str); 8] = [
    (r"\x1b\[[0-9;]*[A-Za-z]", ""),
    (r#"(?m)(^|[\s"'`(=])/(?:[\w.@+-]+/)+[\w.@+-]*"#, "${1}<path>"),
    (r"\b[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\b", "<mac>"),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?:/\d+|:\d+)?\b", "<ip>"),
    (r"\b[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{0,4}){2,7}\b", "<ip>"),
    (r"\b(?:0x[0-9a-fA-F]+|[0-9a-fA-F]*\d[0-9a-fA-F]*-[0-9a-fA-F-]{8,}|[0-9a-fA-F]{8,})\b", "<id>"),
    (r"\b\d+(?:\.\d+)? ?(?:ns|µs|us|ms|s|min|m|h)\b", "<time>"),
    (r"\d+(?:\.\d+)?", "<n>"),
];

/// The words of a failure without what is different each time: addresses, times, numbers, ids, paths, consoles. Two failures
/// with the same are taken to be the same one.
pub fn signature(failure: &str) -> String {
    static PATTERNS: OnceLock<Vec<(Regex, &str)>> = OnceLock::new();
    let compile = |&(pattern, by): &(&str, &'static str)| (Regex::new(pattern).expect("a pattern of ours"), by);
    let patterns = PATTERNS.get_or_init(|| DIFFERENT.iter().map(compile).collect());
    let failure = without_passwords(failure);
    let words = failure.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_own = |line: &&str| !line.contains(CONSOLE_MARK) && !line.starts_with(DIGEST_MARK);
    let words: Vec<_> = words.take_while(is_own).take(LINES).collect();
    patterns.iter().fold(words.join("\n"), |text, (pattern, by)| pattern.replace_all(&text, *by).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_different_each_time_does_not_count() {
        for (one, another) in [
            ("node `db`: no answer after 3.52 s", "node `db`: no answer after 12 s"),
            ("10.77.0.11:22 refused", "10.77.3.250:4022 refused"),
            ("fd77::11 is gone", "fd77:0:1::12 is gone"),
            ("52:54:00:4d:00:0b lost", "52:54:00:4d:00:0c lost"),
            ("at 0xffff8880", "at 0x12"),
            ("at tests/web.rs:5:9", "at tests/web.rs:120:13"),
            ("see /run/user/0/vmtest/54f0f083/node/console", "see /tmp/vmtest-5/0a00ff01/node/console"),
            ("run 54f0f083 is over", "run 0aa0f08b is over"),
            ("pid 12 of 3", "pid 14571 of 9"),
            ("it broke\n  last console lines:\n a", "it broke\n  last console lines:\n b"),
        ] {
            assert_eq!(signature(one), signature(another));
        }
        assert_eq!(signature("node `db`: \x1b[1mno\x1b[0m answer after 3.52 s"), "node `db`: no answer after <time>");
    }

    #[test]
    fn what_says_why_counts() {
        for (one, another) in [
            ("at tests/web.rs:5:9", "at tests/db.rs:5:9"),
            ("node `db`: no answer", "node `web`: no answer"),
            ("the moon is full", "the moon is new"),
            ("`false` ended with a code", "`true` ended with a code"),
        ] {
            assert_ne!(signature(one), signature(another));
        }
    }
}
