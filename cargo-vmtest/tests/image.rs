//! `cargo vmtest image`, on caches as tests leave them.

use std::{
    fs,
    future::pending,
    path::Path,
    process::{Command, Output},
};

use nix::sys::signal::Signal;
use serde_json::Value;
use vmtest::prelude::*;
use vmtest_tests::Victim;

/// Tests that are run by others.
mod victims {
    use super::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by an_image_that_a_test_uses_stays"]
    async fn waits(_node: Node) {
        println!("the body begins");
        pending::<()>().await;
    }
}

fn image(args: &[&str], environment: &[(&str, &Path)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cargo-vmtest"));
    command.arg("image").args(args).envs(environment.iter().copied()).output().expect("the command runs")
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_image_that_a_test_uses_stays() {
    let mut running = Victim::new("waits").start();
    running.wait_for("the body begins");
    let runs = running.runs().to_owned();
    let of_run = [("VMTEST_RUN", runs.as_path())];
    let listed: Value = serde_json::from_str(&said(&image(&["ls", "--json"], &of_run))).expect("it is JSON");
    assert_eq!(listed["version"], 1);
    let all = listed["images"].as_array().expect("images are a list");
    let used = all.iter().find(|image| image["in_use"] == true).expect("one is in use");
    let id = used["id"].as_str().expect("it has a name");
    assert!(id.starts_with("micro-") && used["bytes"].as_u64() > Some(1 << 20), "{used}");

    let refused = image(&["rm", id], &of_run);
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(complaint.contains(&format!("error: {id} is in use")), "{complaint}");
    assert!(!said(&image(&["prune", "--all", "--dry-run"], &of_run)).contains(id));
    let inspected: Value = serde_json::from_str(&said(&image(&["inspect", id], &of_run))).expect("it is JSON");
    assert_eq!(inspected["image"]["name"], "micro");

    running.signal(Signal::SIGTERM);
    running.finish().assert_nothing_left();
}

#[test]
fn what_nobody_uses_is_removed() {
    let cache = tempfile::tempdir().expect("a directory");
    let of_cache = [("VMTEST_CACHE", cache.path())];
    assert_eq!(said(&image(&["ls"], &of_cache)), "0 images, 0 B\n");
    let images = cache.path().join("images");
    for name in ["micro-replaced", ".micro-1-build-killed"] {
        fs::create_dir(images.join(name)).expect("it can be made");
        fs::write(images.join(name).join("vmlinuz"), [1; 9000]).expect("it can be written");
    }
    assert!(said(&image(&["ls"], &of_cache)).contains("used 0 min ago, replaced by another"));
    assert!(said(&image(&["prune", "--dry-run"], &of_cache)).contains("would remove micro-replaced"));
    assert!(images.join("micro-replaced").exists());
    assert!(said(&image(&["prune"], &of_cache)).contains("removed micro-replaced"));
    let left: Vec<_> = fs::read_dir(&images).expect("it is there").flatten().map(|entry| entry.file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
    let missing = image(&["rm", "debian"], &of_cache);
    let complaint = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(complaint.contains("there is no image `debian` in the cache, and no other"), "{complaint}");
}
