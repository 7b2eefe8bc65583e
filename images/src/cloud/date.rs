//! Days, as publishers write them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// As HTTP abbreviates them.
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// How many digits a day has in the name of a file or a directory.
const DIGITS: usize = 8;

/// A day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let is_one = (2000..2100).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
        is_one.then_some(Self { year, month, day })
    }

    /// The first that stands in a name, as 20260712.
    pub(super) fn in_name(name: &str) -> Option<Self> {
        let numbers = name.split(|c: char| !c.is_ascii_digit()).filter(|number| number.len() == DIGITS);
        let read =
            |number: &str| Self::new(number[..4].parse().ok()?, number[4..6].parse().ok()?, number[6..].parse().ok()?);
        numbers.into_iter().find_map(read)
    }

    /// That of a time as HTTP has it: `Sun, 06 Nov 1994 08:49:37 GMT`.
    pub(super) fn of_http(time: &str) -> Option<Self> {
        let mut words = time.split_whitespace().skip(1);
        let (day, month, year) = (words.next()?, words.next()?, words.next()?);
        let month = MONTHS.iter().zip(1..).find(|(name, _)| **name == month)?.1;
        Self::new(year.parse().ok()?, month, day.parse().ok()?)
    }
}

impl FromStr for Date {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let mut parts = text.split('-');
            let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
            let date = Self::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
            (date.to_string() == text).then_some(date)
        };
        read().ok_or_else(|| format!("`{text}` is no date: write it as 2026-07-12"))
    }
}

impl TryFrom<String> for Date {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Date> for String {
    fn from(date: Date) -> Self {
        date.to_string()
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_found_where_publishers_have_them() {
        let said = |date: Option<Date>| date.map(|date| date.to_string());
        assert_eq!(said(Date::in_name("20260712-2537/debian-12-20260713.qcow2")).as_deref(), Some("2026-07-12"));
        assert_eq!(said(Date::in_name("release-20260705.1")).as_deref(), Some("2026-07-05"));
        for none in ["", "release", "debian-12-2026071", "99999999", "202607121"] {
            assert_eq!(Date::in_name(none), None, "{none}");
        }
        assert_eq!(said(Date::of_http("Tue, 14 Apr 2026 08:49:37 GMT")).as_deref(), Some("2026-04-14"));
        assert_eq!(Date::of_http("yesterday"), None);
    }

    #[test]
    fn dates_are_read_as_they_are_written() {
        let date: Date = "2026-07-05".parse().expect("it is one");
        assert_eq!(date.to_string(), "2026-07-05");
        assert!(date < "2026-07-12".parse().expect("it is one"));
        for wrong in ["", "2026-7-5", "2026-13-01", "20260705", "2026-07-05-1", "July 5"] {
            assert!(wrong.parse::<Date>().expect_err("it is none").ends_with("write it as 2026-07-12"), "{wrong}");
        }
    }
}
