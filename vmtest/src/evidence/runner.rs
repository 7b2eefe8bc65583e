//! What nextest says of the attempt that it runs, and what it is told of one that has failed.

use std::{env, path::Path};

use serde_json::{Value, json};

/// Files beyond these are in the directory, whose name is printed anyway.
const MOST_ATTACHMENTS: usize = 100;

/// An attempt of nextest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Runner {
    /// Which run of nextest it belongs to.
    run: Option<String>,
    profile: Option<String>,
    binary_id: Option<String>,
    group: Option<String>,
    attempt: u32,
    attempts: u32,
    /// Which repetition of a stress run, from 0.
    stress: Option<u32>,
}

impl Runner {
    /// `None` where the calling process was not started by nextest to run one test.
    pub(super) fn get() -> Option<Self> {
        Self::of(|name| env::var(name).ok())
    }

    fn of(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        variable("NEXTEST").filter(|value| value == "1")?;
        let number = |name: &str| variable(name).and_then(|value| value.parse().ok());
        Some(Self {
            run: variable("NEXTEST_RUN_ID"),
            profile: variable("NEXTEST_PROFILE"),
            binary_id: variable("NEXTEST_BINARY_ID"),
            group: variable("NEXTEST_TEST_GROUP"),
            attempt: number("NEXTEST_ATTEMPT").unwrap_or(1),
            attempts: number("NEXTEST_TOTAL_ATTEMPTS").unwrap_or(1),
            stress: number("NEXTEST_STRESS_CURRENT"),
        })
    }

    /// What an attempt's name ends with, where there can be several: `-try2of3`.
    pub(super) fn suffix(&self) -> String {
        let stress = self.stress.map(|index| format!("-stress{}", index + 1)).unwrap_or_default();
        match self.attempts.max(self.attempt) {
            1 => stress,
            several => format!("{stress}-try{}of{several}", self.attempt),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "name": "nextest", "run": self.run, "profile": self.profile, "binary_id": self.binary_id,
            "group": self.group, "attempt": self.attempt, "attempts": self.attempts, "stress": self.stress,
        })
    }
}

/// Prints the files of a failed attempt as stores of JUnit's XML know them, which nextest makes of this output: the form of
/// the attachments plugin of Jenkins, and of GitLab.
pub(super) fn print_attachments(dir: &Path, files: &[String]) {
    let lines = attachments(dir, files);
    if !lines.is_empty() {
        println!("{lines}");
    }
}

fn attachments(dir: &Path, files: &[String]) -> String {
    let paths = files.iter().map(|file| dir.join(file).display().to_string());
    // Nothing is escaped in this form.
    let plain = paths.filter(|path| !path.contains(['\n', ']']));
    plain.take(MOST_ATTACHMENTS).map(|path| format!("[[ATTACHMENT|{path}]]\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runner(variables: &[(&str, &str)]) -> Option<Runner> {
        Runner::of(|name| variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn attempts_have_names_where_there_can_be_several() {
        assert_eq!(runner(&[("NEXTEST_ATTEMPT", "2")]), None, "it is not nextest's process");
        let suffix = |more: &[(&str, &str)]| runner(&[&[("NEXTEST", "1")], more].concat()).unwrap().suffix();
        assert_eq!(suffix(&[("NEXTEST_ATTEMPT", "1"), ("NEXTEST_TOTAL_ATTEMPTS", "1")]), "");
        assert_eq!(suffix(&[("NEXTEST_ATTEMPT", "1"), ("NEXTEST_TOTAL_ATTEMPTS", "3")]), "-try1of3");
        assert_eq!(suffix(&[("NEXTEST_ATTEMPT", "2")]), "-try2of2");
        assert_eq!(suffix(&[("NEXTEST_STRESS_CURRENT", "4")]), "-stress5");
        assert_eq!(suffix(&[("NEXTEST_STRESS_CURRENT", "none")]), "");
    }

    #[test]
    fn attachments_are_lines_of_absolute_paths() {
        let files = ["failure.txt".to_owned(), "nodes/a]b/x".to_owned(), "nodes/web/console.log".to_owned()];
        assert_eq!(
            attachments(Path::new("/w/1"), &files),
            "[[ATTACHMENT|/w/1/failure.txt]]\n[[ATTACHMENT|/w/1/nodes/web/console.log]]\n"
        );
    }
}
