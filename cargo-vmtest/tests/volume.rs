//! `cargo vmtest volume`, beside tests that use some.

use std::{
    future::pending,
    path::Path,
    process::{Command, Output},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use vmtest::prelude::*;
use vmtest_tests::{Victim, image_cache};

/// Tests that are run by others.
mod victims {
    use super::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_volume_that_a_test_uses_stays"]
    async fn keeps(#[node(volume("data"), volume("more", at = "/srv/more"))] node: Node) -> Result {
        node.sh("echo precious >/volumes/data/file").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_volume_that_a_test_uses_stays"]
    async fn waits(#[node(volume("data", access = "read-only"))] _node: Node) {
        println!("the body begins");
        pending::<()>().await;
    }
}

fn volume(args: &[&str], cache: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
    command.arg("volume").args(args).env("VMTEST_CACHE", cache).output().expect("the command runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn refused(output: &Output, why: &str) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && complaint.contains(why), "{complaint}");
}

#[test]
fn a_volume_that_a_test_uses_stays() {
    let cache = image_cache(|_| ());
    let of = |args: &[&str]| volume(args, cache.path());
    assert_eq!(said(&of(&["ls"])), "0 volumes, 0 B\n");
    refused(&of(&["rm", "data"]), "there is no volume `data` in the cache, and no other");
    let victim = |name| Victim::new(name).env("VMTEST_CACHE", cache.path());
    victim("keeps").run().assert_passed().assert_nothing_left();

    let mut running = victim("waits").start();
    running.wait_for("the body begins");
    let listed: Value = serde_json::from_str(&said(&of(&["ls", "--json"]))).expect("it is JSON");
    assert_eq!(listed["version"], 1);
    let all = listed["volumes"].as_array().expect("volumes are a list");
    let data = all.iter().find(|volume| volume["name"] == "data").expect("it is there");
    assert_eq!((&data["in_use"], &data["used_by"][0]["name"]), (&true.into(), &"victims::waits".into()));
    assert_eq!(data["used_by"][0]["pid"], running.pid());
    assert_eq!((data["project"].as_str(), &data["bytes"]), (Some(env!("CARGO_MANIFEST_DIR")), &Value::Null));
    let id = data["id"].as_str().expect("it has one");
    assert!(said(&of(&["ls"])).contains("in use by `victims::waits`, process "));
    for name in ["data", id] {
        refused(&of(&["rm", "more", name]), &format!("{id} is in use by `victims::waits`, process {}", running.pid()));
    }
    assert!(!said(&of(&["prune", "--older-than", "0s", "--dry-run"])).contains(id));
    assert!(said(&of(&["prune", "--older-than", "1h"])).contains("0 volumes"), "both were used just now");

    running.signal(Signal::SIGTERM);
    running.finish().assert_nothing_left();
    assert!(said(&of(&["rm", "data"])).starts_with(&format!("removed {id}, ")));
    assert!(said(&of(&["prune", "--older-than", "0s"])).contains("/more, "));
    assert_eq!(said(&of(&["ls"])), "0 volumes, 0 B\n");
}
