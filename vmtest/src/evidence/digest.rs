//! What is said of a failure: its own words, the first cause, where everything is, how to see it again.

use std::{fmt, path::Path, time::Duration};

use serde::Serialize;

use super::{
    again,
    attempt::FAILURE,
    health::Finding,
    work::{Awaited, Work},
};

/// A failure and the rest take a screen together: 40 lines. Of a longer message the beginning and the end are shown.
const HEAD: usize = 15;
const TAIL: usize = 5;
/// The same of a message that shows a console itself, so that no other is shown.
const TAIL_WITH_CONSOLE: usize = 14;
/// What stands above a console in a message.
pub(super) const CONSOLE_MARK: &str = "last console lines";
/// How many lines of the console of the node in question are shown.
const CONSOLE_LINES: usize = 8;
/// Of what is under way, the outermost says most.
const SHOWN_AWAITED: usize = 3;
/// A line of a console can be long.
const WIDTH: usize = 200;
/// Work that failed before this says nothing about the failure: the body has gone on.
const RECENT: Duration = Duration::from_secs(2);

/// Everything that a digest is made from.
#[derive(Debug)]
pub(super) struct Digest<'a> {
    /// The failure's own words.
    pub(super) message: &'a str,
    /// Whether they have been printed.
    pub(super) printed: bool,
    /// What was under way.
    pub(super) awaited: &'a [Awaited],
    /// The last work that failed, how, and when.
    pub(super) failed: Option<&'a (Awaited, String, Duration)>,
    /// When it became known that the test fails.
    pub(super) at: Duration,
    pub(super) findings: &'a [Finding],
    /// The last lines of the console of each node, or of its VMM's log where the machine has not come to say anything.
    pub(super) consoles: &'a [LastLines],
    /// The machines that run and were asked in vain.
    pub(super) unanswered: &'a [Unanswered],
    pub(super) artifacts: Option<&'a Path>,
    /// The line that runs it again by Cargo alone.
    pub(super) again: &'a str,
}

/// The last lines of what a machine, or its VMM, has said.
#[derive(Debug)]
pub(crate) struct LastLines {
    pub(crate) node: String,
    /// Of what they are the last.
    pub(crate) of: &'static str,
    pub(crate) lines: Vec<String>,
}

/// A machine that runs and has not said why a test fails.
#[derive(Debug)]
pub(crate) struct Unanswered {
    pub(crate) node: String,
    pub(crate) why: String,
}

/// Where to look first.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct First {
    /// In seconds on the clock of the timeline.
    at: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    what: String,
}

impl Digest<'_> {
    /// The earliest anomaly, else the failure itself.
    pub(super) fn first(&self) -> First {
        match self.earliest() {
            Some(finding) => First {
                at: finding.at.as_secs_f64(),
                node: Some(finding.node.clone()),
                what: format!("{}: {}", finding.sign, finding.line),
            },
            None => First {
                at: self.at.as_secs_f64(),
                node: self.node(),
                what: self.message.lines().next().unwrap_or("the test has failed").to_owned(),
            },
        }
    }

    fn earliest(&self) -> Option<&Finding> {
        self.findings.iter().filter(|finding| !finding.allowed).min_by_key(|finding| finding.at)
    }

    fn has_console(&self) -> bool {
        self.message.contains(CONSOLE_MARK)
    }

    fn just_failed(&self) -> Option<&(Awaited, String, Duration)> {
        self.failed.filter(|(_, _, when)| *when + RECENT >= self.at)
    }

    /// What was waited for: not processes that run beside the test, where something has just failed.
    fn awaited(&self) -> &[Awaited] {
        let beside = self.awaited.iter().all(|work| work.kind == Work::Process);
        if beside && self.just_failed().is_some() { &[] } else { self.awaited }
    }

    /// The node of the first anomaly, else that on which something was waited for.
    fn node(&self) -> Option<String> {
        let of_work = || {
            let awaited = self.awaited().iter().find_map(|work| work.node.clone());
            awaited.or_else(|| self.just_failed()?.0.node.clone())
        };
        self.earliest().map(|finding| finding.node.clone()).or_else(of_work)
    }

    fn write_message(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.message.lines().collect();
        let tail = if self.has_console() { TAIL_WITH_CONSOLE } else { TAIL };
        match self.artifacts {
            _ if self.printed => Ok(()),
            // It is nowhere else.
            None => lines.iter().try_for_each(|line| writeln!(f, "{line}")),
            Some(_) if lines.len() <= HEAD + tail + 1 => lines.iter().try_for_each(|line| writeln!(f, "{line}")),
            Some(_) => {
                lines[..HEAD].iter().try_for_each(|line| writeln!(f, "{line}"))?;
                writeln!(f, "    [{} lines more: {FAILURE}]", lines.len() - HEAD - tail)?;
                lines[lines.len() - tail..].iter().try_for_each(|line| writeln!(f, "{line}"))
            }
        }
    }

    fn write_awaited(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let awaited = self.awaited();
        for work in awaited.iter().take(SHOWN_AWAITED) {
            let took = self.at.saturating_sub(work.since).as_secs_f64();
            writeln!(f, "  awaited: {}, for {took:.1} s", Shown(work))?;
        }
        if awaited.is_empty()
            && let Some((work, how, _)) = self.just_failed()
        {
            writeln!(f, "  failed: {}: {}", Shown(work), cut(how.lines().next().unwrap_or_default()))?;
        }
        Ok(())
    }

    fn write_unanswered(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((Unanswered { node, why }, others)) = self.unanswered.split_first() else { return Ok(()) };
        write!(f, "  nothing from inside `{node}`: {}", cut(why.lines().next().unwrap_or_default()))?;
        match others.len() {
            0 => writeln!(f),
            others => writeln!(f, "; and {others} more"),
        }
    }

    fn write_earliest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(finding) = self.earliest() else {
            return writeln!(f, "  nothing was anomalous: no machine ended by itself, and no console shows trouble");
        };
        let before = self.at.saturating_sub(finding.at).as_secs_f64();
        writeln!(f, "  earliest anomaly: {} on `{}`, {before:.1} s before the failure:", finding.sign, finding.node)?;
        writeln!(f, "    {}", cut(&finding.line))
    }
}

impl fmt::Display for Digest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_message(f)?;
        writeln!(f, "first cause, {:.1} s after the start:", self.first().at)?;
        self.write_awaited(f)?;
        self.write_earliest(f)?;
        self.write_unanswered(f)?;
        let node = self.node();
        let console = self.consoles.iter().find(|last| Some(&last.node) == node.as_ref() && !last.lines.is_empty());
        // A message with a console shows more of it.
        if let Some(LastLines { node, of, lines }) = console.filter(|_| !self.has_console()) {
            writeln!(f, "  last lines of {of} of `{node}`:")?;
            for line in lines.iter().skip(lines.len().saturating_sub(CONSOLE_LINES)) {
                writeln!(f, "    {}", cut(line))?;
            }
        }
        match self.artifacts {
            Some(dir) => {
                writeln!(f, "  everything: {}", dir.display())?;
                writeln!(f, "  by cargo alone: {}", self.again)?;
                write!(f, "  again: {}", again::by_repro(dir))
            }
            None => write!(f, "  again: {}", self.again),
        }
    }
}

struct Shown<'a>(&'a Awaited);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Awaited { node, kind, what, .. } = self.0;
        let what = cut(what.lines().next().unwrap_or_default());
        match kind {
            Work::Command | Work::Process => write!(f, "`{what}`")?,
            Work::Wait => write!(f, "until {what}")?,
            Work::Copy | Work::Power => f.write_str(&what)?,
            Work::Span => write!(f, "the end of the span `{what}`")?,
        }
        node.iter().try_for_each(|node| write!(f, " on `{node}`"))
    }
}

fn cut(line: &str) -> String {
    match line.char_indices().nth(WIDTH) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::evidence::Sign;

    fn digest<'a>(message: &'a str, findings: &'a [Finding], consoles: &'a [LastLines]) -> Digest<'a> {
        Digest {
            message,
            printed: false,
            awaited: &[],
            failed: None,
            at: Duration::from_secs(12),
            findings,
            consoles,
            unanswered: &[],
            artifacts: Some(Path::new("/artifacts/1")),
            again: "cargo test",
        }
    }

    fn finding(at: u64, node: &str, allowed: bool) -> Finding {
        let line = format!("[ 1.0] Out of memory: Killed process {at}");
        Finding { at: Duration::from_secs(at), node: node.into(), sign: Sign::Oom, line, allowed }
    }

    fn silent(node: &str) -> Unanswered {
        Unanswered { node: node.to_owned(), why: "it has not answered\nat all".to_owned() }
    }

    #[test]
    fn the_earliest_anomaly_of_any_node_comes_first() {
        let findings = [finding(3, "web", true), finding(9, "db", false), finding(11, "web", false)];
        let consoles = ["db", "web"].map(|name| LastLines {
            node: name.to_owned(),
            of: "the console",
            lines: vec![format!("the last line of {name}")],
        });
        let awaited = [Awaited {
            node: Some("web".into()),
            kind: Work::Wait,
            what: "somebody listens on port 80".into(),
            since: Duration::from_secs(2),
        }];
        let unanswered = ["db", "web"].map(silent);
        let digest = Digest { awaited: &awaited, unanswered: &unanswered, ..digest("timed out", &findings, &consoles) };
        expect![[r#"
            timed out
            first cause, 9.0 s after the start:
              awaited: until somebody listens on port 80 on `web`, for 10.0 s
              earliest anomaly: an out-of-memory kill on `db`, 3.0 s before the failure:
                [ 1.0] Out of memory: Killed process 9
              nothing from inside `db`: it has not answered; and 1 more
              last lines of the console of `db`:
                the last line of db
              everything: /artifacts/1
              by cargo alone: cargo test
              again: cargo vmtest repro /artifacts/1"#]]
        .assert_eq(&digest.to_string());
    }

    #[test]
    fn it_says_when_nothing_is_anomalous() {
        let work = Awaited {
            node: Some("db".into()),
            kind: Work::Command,
            what: "false".into(),
            since: Duration::from_secs(11),
        };
        let failed = (work, "exit code 1".to_owned(), Duration::from_secs(12));
        expect![[r#"
            `false` failed
            first cause, 12.0 s after the start:
              failed: `false` on `db`: exit code 1
              nothing was anomalous: no machine ended by itself, and no console shows trouble
              everything: /artifacts/1
              by cargo alone: cargo test
              again: cargo vmtest repro /artifacts/1"#]]
        .assert_eq(&Digest { failed: Some(&failed), ..digest("`false` failed", &[], &[]) }.to_string());

        let beside = Awaited { node: None, kind: Work::Process, what: "serve".into(), since: Duration::ZERO };
        let awaited = [beside];
        let digest = Digest { awaited: &awaited, failed: Some(&failed), ..digest("`false` failed", &[], &[]) };
        assert!(digest.to_string().contains("\n  failed: `false` on `db`"), "{digest}");
        let digest = Digest { failed: None, ..digest };
        assert!(digest.to_string().contains("\n  awaited: `serve`, for 12.0 s"), "{digest}");
    }

    #[test]
    fn it_is_never_longer_than_a_screen() {
        let message = (0..500).map(|n| format!("line {n}\n")).collect::<String>();
        let lines: Vec<_> = (0..200).map(|n| format!("{n} {}", "x".repeat(5000))).collect();
        let consoles = [LastLines { node: "db".to_owned(), of: "the console", lines }];
        let findings: Vec<_> = (0..100).map(|at| finding(at, "db", false)).collect();
        let awaited: Vec<_> = (0..50)
            .map(|n| Awaited { node: None, kind: Work::Command, what: format!("a\n{n}"), since: Duration::ZERO })
            .collect();
        let unanswered: Vec<_> = (0..9).map(|n| silent(&n.to_string())).collect();
        let long =
            |message| Digest { awaited: &awaited, unanswered: &unanswered, ..digest(message, &findings, &consoles) };
        let text = long(&message).to_string();
        assert!(text.lines().count() <= 40, "{text}");
        let with_console = format!("{CONSOLE_MARK}\n{message}");
        let longest = long(&with_console).to_string();
        assert!(longest.lines().count() <= 40, "{longest}");
        assert!(text.contains("line 0\n") && text.contains("line 499\n") && text.contains("[480 lines more"), "{text}");
    }
}
