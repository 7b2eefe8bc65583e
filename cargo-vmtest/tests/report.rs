//! `cargo vmtest report`, on attempts that are made up.

mod made_up;

use std::{
    fs,
    process::{Command, Output},
};

use made_up::failed_attempt;
use serde_json::json;
use tempfile::TempDir;

fn report(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cargo-vmtest")).arg("report").args(args).output().expect("it can be run")
}

#[test]
fn a_page_is_one_file_and_what_is_in_it_is_text() {
    let dir = TempDir::new().expect("a temporary directory");
    failed_attempt(dir.path(), 10);
    let made = report(&[&dir.path().display().to_string()]);
    assert!(made.status.success(), "{made:?}");
    let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect("it was made");
    let (index, page) = (read("index.html"), read("b.breaks/1/report.html"));
    assert!(
        index.contains(r#"href="b.breaks/1/report.html""#) || index.contains("b.breaks&#x2f;1&#x2f;report.html"),
        "{index}"
    );
    for text in [&index, &page] {
        assert!(!text.contains("<script>alert"), "{text}");
        assert!(!text.contains("http://") && !text.contains("https://"), "it loads nothing: {text}");
    }
    assert!(page.contains("nodes/db/console.log") || page.contains("nodes&#x2f;db&#x2f;console.log"), "{page}");
}

#[test]
fn a_killed_run_has_a_page_of_what_it_has_left() {
    let dir = TempDir::new().expect("a temporary directory");
    let attempt = dir.path().join("b.killed/1");
    fs::create_dir_all(attempt.join("nodes/db")).expect("it can be made");
    fs::write(attempt.join("started.json"), r#"{"test":"killed","binary":"b","unix_time":1.0}"#).expect("written");
    let timeline = b"{\"at\":0.5,\"event\":\"step\",\"what\":\"the last step\"}\n\xff\xfe\n{\"at\":0.7,\"event\":\"st";
    fs::write(attempt.join("timeline.jsonl"), timeline).expect("it can be written");
    let mut console = b"    0.250000 from the console \xff\n".to_vec();
    console.extend((0..100_000).map(|n| (n % 256) as u8));
    fs::write(attempt.join("nodes/db/console.log"), console).expect("it can be written");
    fs::write(attempt.join("verdict.json"), "{\"verd").expect("it can be written");
    let place = dir.path().display().to_string();
    assert!(report(&[&place]).status.success());
    let page = fs::read_to_string(attempt.join("report.html")).expect("it was made");
    for part in ["<title>killed: killed</title>", "step: the last step", "from the console \u{fffd}"] {
        assert!(page.contains(part), "no `{part}`");
    }
    for format in ["junit", "markdown", "json"] {
        let output = report(&[&place, "--format", format]);
        assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("killed"), "{output:?}");
    }
}

#[test]
fn where_nothing_is_kept_it_says_what_to_do() {
    let dir = TempDir::new().expect("a temporary directory");
    let output = report(&[&dir.path().display().to_string(), "--format", "junit"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("run some tests"), "{output:?}");
}

#[test]
fn summaries_are_for_other_programs() {
    let dir = TempDir::new().expect("a temporary directory");
    failed_attempt(dir.path(), 1);
    let of = |format: &str| {
        let output = report(&[&dir.path().display().to_string(), "--format", format]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it is text")
    };
    assert!(of("junit").contains("<failure>it broke</failure>"));
    assert!(of("markdown").contains("0 passed, 1 failed"));
    let json: serde_json::Value = serde_json::from_str(&of("json")).expect("it is JSON");
    assert_eq!((&json[0]["test"], &json[0]["first_cause"]["node"]), (&"breaks".into(), &"db".into()));
}

#[test]
fn the_history_is_shown_and_read_by_programs() {
    let dir = TempDir::new().expect("a temporary directory");
    let history = dir.path().join("history");
    fs::create_dir(&history).expect("it can be made");
    let line = |id: u32, verdict: &str| {
        json!({
            "id": id.to_string(), "test": "t", "binary": "b", "backend": "fake", "began": id, "verdict": verdict, "took": 1.0,
            "phases": {"boot": id}, "signature": if verdict == "failed" { "it broke" } else { "" },
        })
    };
    let lines = [line(1, "passed"), line(2, "failed")].map(|line| format!("{line}\n")).concat();
    fs::write(history.join("1000.jsonl"), lines).expect("it can be written");
    // Of a process that was killed, and one that cannot be told from it in another form.
    let killed = json!({
        "format": 1, "vmtest": "1", "test": "t", "runner_name": "t", "binary": "b", "package": null, "target": [], "profile": null,
        "pid": 0x7fff_ffff, "unix_time": 3.0, "settings": {}, "runner_attempt": null, "cache": "/c",
        "host": {"kernel": "6", "arch": "x", "cpus": 1, "memory": 1},
    });
    let attempt = dir.path().join("b.t/3");
    fs::create_dir_all(&attempt).expect("it can be made");
    fs::write(attempt.join("started.json"), killed.to_string()).expect("it can be written");
    let place = dir.path().display().to_string();
    for _ in 0..2 {
        let said = report(&[&place, "--history"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{said:?}");
        assert!(text.contains("  b t: 2 of 3 runs failed\n"), "{text}");
        assert!(text.contains("it broke\n") && text.contains("it was killed: there is no verdict\n"), "{text}");
        assert!(text.contains("  boot                              1.000 s    2.000 s      2\n"), "{text}");
    }
    let json = report(&[&place, "--history", "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("it is JSON");
    assert_eq!((&json["runs"], &json["backends"]["fake"][0]["p95"]), (&3.into(), &2.0.into()));
    let none = report(&["/nonexistent", "--history"]);
    assert!(String::from_utf8_lossy(&none.stderr).contains("there is no history in /nonexistent"), "{none:?}");
    let junit = report(&[&place, "--history", "--format", "junit"]);
    assert!(String::from_utf8_lossy(&junit.stderr).contains("JSON with `--format json`"), "{junit:?}");
}
