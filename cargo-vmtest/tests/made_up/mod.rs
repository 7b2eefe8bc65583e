//! Attempts that are made up, for the tests of what is made of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

/// What a page must show and never run.
pub(crate) const HOSTILE: &str = "</script><script>alert(1)</script> & <b>\u{2028}";

/// An attempt that has failed, with so many commands on its two machines, and its directory.
pub(crate) fn failed_attempt(root: &Path, commands: u32) -> PathBuf {
    let dir = root.join("b.breaks/1");
    let mut events = vec![
        json!({"at": 0.1, "event": "state", "node": "web", "state": "running"}),
        json!({"at": 0.1, "event": "state", "node": "db", "state": "running"}),
    ];
    for n in 0..commands {
        let (at, node) = (1.0 + f64::from(n) / 1000.0, if n % 2 == 0 { "web" } else { "db" });
        events.push(json!({"at": at, "event": "began", "id": n, "node": node, "kind": "command", "what": format!("command {n}")}));
        events.push(json!({"at": at + 0.0005, "event": "ended", "id": n, "took": 0.0005, "code": 0}));
    }
    let last = 1.0 + f64::from(commands) / 1000.0;
    events.insert(
        4,
        json!({"at": 1.0006, "event": "anomaly", "node": "db", "sign": "oom", "line": HOSTILE, "allowed": false}),
    );
    events.push(json!({"at": last, "event": "body_ended", "failure": "it broke"}));
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    let write = |name: &str, text: &str| write(&dir, name, text);
    write("started.json", &json!({"test": "breaks", "binary": "b", "unix_time": 1.7e9}).to_string());
    write("timeline.jsonl", &lines);
    write("verdict.json", &json!({"verdict": "failed", "after": last, "failure": "it broke"}).to_string());
    write("failure.txt", "it broke");
    write("first-cause.json", &json!({"at": 1.0006, "node": "db", "what": HOSTILE}).to_string());
    write("nodes/db/console.log", "       1.0 the console of db\n");
    dir
}

/// Puts a file into an attempt.
pub(crate) fn write(attempt: &Path, name: &str, content: impl AsRef<[u8]>) {
    let path = attempt.join(name);
    fs::create_dir_all(path.parent().expect("it is in a directory")).expect("it can be made");
    fs::write(path, content).expect("it can be written");
}
