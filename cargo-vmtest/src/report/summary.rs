//! Attempts for other programs: JUnit, JSON, Markdown.

use std::{collections::BTreeMap, fmt::Write};

use minijinja::{Environment, context};
use serde_json::{Value, json};
use vmtest::evidence::{Ending, Kept};

const JUNIT: &str = include_str!("junit.xml");
/// A summary of a CI run is cut at a megabyte.
const SHOWN: usize = 8 << 10;

/// The newest attempt of each test, by name.
pub(super) fn newest(all: &[Kept]) -> Vec<&Kept> {
    let mut newest: BTreeMap<(&str, &str), &Kept> = BTreeMap::new();
    // The newest come first.
    for kept in all {
        newest.entry((&kept.binary, &kept.test)).or_insert(kept);
    }
    newest.into_values().collect()
}

/// How an attempt has ended, in a word.
pub(super) fn verdict(kept: &Kept) -> &'static str {
    kept.ending.word()
}

/// Whether somebody has to look at it.
pub(super) fn is_bad(kept: &Kept) -> bool {
    !matches!(kept.ending, Ending::Passed | Ending::Skipped)
}

/// Why it has not passed.
fn reason(kept: &Kept) -> String {
    let failure =
        if kept.failure.is_empty() { "it was killed, or still runs: there is no verdict" } else { &kept.failure };
    // Neither XML nor a terminal takes these.
    failure.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).take(SHOWN).collect()
}

pub(super) fn junit(newest: &[&Kept]) -> Result<String, String> {
    let mut templates = Environment::new();
    templates.add_template("junit.xml", JUNIT).expect("the template is part of this program");
    let case = |kept: &&Kept| {
        let skipped = kept.ending == Ending::Skipped;
        let failed = is_bad(kept);
        context! { binary => kept.binary, test => kept.test, took => kept.took, failed, skipped, failure => reason(kept) }
    };
    let failures = newest.iter().filter(|kept| is_bad(kept)).count();
    let cases: Vec<_> = newest.iter().map(case).collect();
    let junit = templates.get_template("junit.xml").and_then(|junit| junit.render(context! { cases, failures }));
    junit.map_err(|e| e.to_string())
}

pub(super) fn json(all: &[Kept]) -> Value {
    let one = |kept: &Kept| {
        json!({
            "test": kept.test, "binary": kept.binary, "verdict": verdict(kept), "began": kept.began, "took": kept.took,
            "dir": kept.dir, "first_cause": kept.first_cause, "failure": kept.failure, "nodes": kept.nodes,
        })
    };
    all.iter().map(one).collect()
}

pub(super) fn markdown(newest: &[&Kept]) -> String {
    let bad: Vec<_> = newest.iter().filter(|kept| is_bad(kept)).collect();
    let passed = newest.iter().filter(|kept| kept.ending == Ending::Passed).count();
    let skipped = newest.len() - bad.len() - passed;
    let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    let mut text = format!("### vmtest: {passed} passed, {} failed{skipped}\n", bad.len());
    for kept in bad {
        let first = kept.first_cause["what"].as_str().map(str::to_owned).unwrap_or_else(|| reason(kept));
        let first = first.lines().next().unwrap_or_default().replace('`', "'");
        let node = kept.first_cause["node"].as_str().map(|node| format!(" on {node}")).unwrap_or_default();
        let words = reason(kept).replace("```", "'''");
        // Writing to a string does not fail.
        _ = write!(
            text,
            "\n<details><summary><b>{} {}</b> {} after {:.1} s</summary>\n\nFirst cause{node}: `{first}`\n\n```text\n{words}\n```\n\n</details>\n",
            escaped(&kept.binary),
            escaped(&kept.test),
            verdict(kept),
            kept.took,
        );
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    fn attempt(root: &Path, test: &str, number: u32, failure: Option<&str>) {
        let dir = root.join(test).join(number.to_string());
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("started.json"), json!({"test": test, "binary": "b", "unix_time": number}).to_string())
            .unwrap();
        let verdict = if failure.is_some() { "failed" } else { "passed" };
        let verdict = json!({"verdict": verdict, "after": 1.25, "failure": failure});
        fs::write(dir.join("verdict.json"), verdict.to_string()).unwrap();
    }

    #[test]
    fn the_newest_attempt_counts() {
        let dir = tempfile::tempdir().unwrap();
        attempt(dir.path(), "flaky", 1, Some("broken"));
        attempt(dir.path(), "flaky", 2, None);
        attempt(dir.path(), "elsewhere", 1, Some("no KVM"));
        let verdict = json!({"verdict": "skipped", "after": 0.5, "failure": "no KVM"}).to_string();
        fs::write(dir.path().join("elsewhere/1/verdict.json"), verdict).unwrap();
        attempt(dir.path(), "bad", 1, Some("a <b> & \u{1b}[1m ```"));
        let all = Kept::all(dir.path());
        let newest = newest(&all);
        let junit = junit(&newest).unwrap();
        assert!(junit.contains(r#"tests="3" failures="1""#), "{junit}");
        assert!(junit.contains("a &lt;b&gt; &amp; [1m"), "{junit}");
        assert!(junit.contains(r#"<testcase classname="b" name="flaky" time="1.25"/>"#), "{junit}");
        assert!(junit.contains("<skipped message=\"no KVM\"/>"), "{junit}");
        let markdown = markdown(&newest);
        assert!(markdown.starts_with("### vmtest: 1 passed, 1 failed, 1 skipped\n"), "{markdown}");
        assert!(markdown.contains("<b>b bad</b> failed after 1.2 s"), "{markdown}");
        assert_eq!(json(&all).as_array().unwrap().len(), 4);
    }
}
