//! Attempts for other programs: JUnit, JSON, Markdown.

use std::{collections::BTreeMap, fmt::Write};

use minijinja::{Environment, context};
use serde_json::{Value, json};
use vmtest::evidence::{Ending, Kept};

const JUNIT: &str = include_str!("junit.xml");
/// A summary of a CI run is cut at a megabyte.
const SHOWN: usize = 8 << 10;

/// The newest attempt of each test on each backend, by name.
pub(super) fn newest(all: &[Kept]) -> Vec<&Kept> {
    let mut tests: BTreeMap<_, BTreeMap<Option<&str>, &Kept>> = BTreeMap::new();
    // The newest come first.
    for kept in all {
        let of_test = tests.entry((kept.suite(), &kept.test)).or_default();
        // One that has not come as far as a backend counts where it is the last word.
        if kept.backend.is_some() || of_test.is_empty() {
            of_test.entry(kept.backend.as_deref()).or_insert(kept);
        }
    }
    tests.into_values().flat_map(BTreeMap::into_values).collect()
}

/// The name of its test, with the backend where there are several.
fn title(kept: &Kept, newest: &[&Kept]) -> String {
    let same = |other: &&&Kept| (other.suite(), &other.test) == (kept.suite(), &kept.test);
    match &kept.backend {
        Some(backend) if newest.iter().filter(same).count() > 1 => format!("{} on {backend}", kept.test),
        _ => kept.test.clone(),
    }
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
        let (failed, skipped) = (kept.ending.is_bad(), kept.ending == Ending::Skipped);
        let files = if failed { kept.files() } else { Vec::new() };
        let attached: Vec<_> = files.iter().map(|file| kept.dir.join(file).display().to_string()).collect();
        let (test, why) = (title(kept, newest), reason(kept));
        context! { binary => kept.suite(), test, took => kept.took, failed, skipped, why, attached }
    };
    let (failures, skipped) =
        (count(newest, |ending| ending.is_bad()), count(newest, |ending| ending == Ending::Skipped));
    let cases: Vec<_> = newest.iter().map(case).collect();
    let junit = templates.get_template("junit.xml");
    junit.and_then(|junit| junit.render(context! { cases, failures, skipped })).map_err(|e| e.to_string())
}

fn count(newest: &[&Kept], of: impl Fn(Ending) -> bool) -> usize {
    newest.iter().filter(|kept| of(kept.ending)).count()
}

pub(super) fn json(all: &[Kept]) -> Value {
    let one = |kept: &Kept| {
        json!({
            "test": kept.test, "package": kept.package, "binary": kept.binary, "backend": kept.backend,
            "verdict": kept.ending.word(), "began": kept.began, "took": kept.took,
            "dir": kept.dir, "first_cause": kept.first_cause, "failure": kept.failure, "nodes": kept.nodes,
        })
    };
    all.iter().map(one).collect()
}

pub(super) fn markdown(newest: &[&Kept]) -> String {
    let (bad, skipped): (Vec<&&Kept>, Vec<&&Kept>) =
        newest.iter().filter(|kept| kept.ending != Ending::Passed).partition(|kept| kept.ending.is_bad());
    let passed = newest.len() - bad.len() - skipped.len();
    let mut text = format!("### vmtest: {passed} passed, {} failed", bad.len());
    // Writing to a string does not fail.
    if !skipped.is_empty() {
        _ = write!(text, ", {} skipped", skipped.len());
    }
    text.push('\n');
    for kept in bad {
        let first = kept.first_cause["what"].as_str().map(str::to_owned).unwrap_or_else(|| reason(kept));
        let first = first.lines().next().unwrap_or_default().replace('`', "'");
        let node = kept.first_cause["node"].as_str().map(|node| format!(" on {node}")).unwrap_or_default();
        let words = reason(kept).replace("```", "'''");
        _ = write!(
            text,
            "\n<details><summary><b>{} {}</b> {} after {:.1} s</summary>\n\nFirst cause{node}: `{first}`\n\n```text\n{words}\n```\n\n</details>\n",
            escaped(&kept.suite()),
            escaped(&title(kept, newest)),
            kept.ending.word(),
            kept.took,
        );
    }
    for kept in skipped {
        let why = reason(kept);
        let why = why.lines().next().unwrap_or_default();
        let (suite, test) = (escaped(&kept.suite()), escaped(&title(kept, newest)));
        _ = write!(text, "\n- {suite} {test} was skipped: {}", escaped(why));
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
