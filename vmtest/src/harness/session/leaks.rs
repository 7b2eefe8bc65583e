//! What nobody had planned fails its test by name, and goes all the same.

use std::fs::{self, File};

use super::{prepared::torn_down_after, provisioned};
use crate::{
    cluster::Run,
    host::{Effect, SpawnRequest, spawn_program},
    sys::make_persistent_tap,
};

/// A child of the keeper that sleeps.
async fn start_sleeper(run: &Run) -> i32 {
    let sleep = SpawnRequest {
        program: "sleep".into(),
        args: vec!["1000".into()],
        dir: run.dir.path().to_owned(),
        stdout: None,
        log: File::create("/dev/null").unwrap(),
        fds: vec![],
        one_cpu: false,
    };
    run.keeper.spawn(move || spawn_program(sleep)).await.unwrap().1.pid
}

fn is_gone(pid: i32) -> bool {
    !fs::exists(format!("/proc/{pid}")).unwrap()
}

#[test]
fn a_child_of_the_keeper_that_no_record_names() {
    let (pid, left) = torn_down_after(async |run| {
        provisioned(run).await.unwrap();
        start_sleeper(run).await
    });
    assert_eq!(left, [format!("process {pid} (`sleep`), a child of the keeper that no record names")]);
    assert!(is_gone(pid));
}

/// A start that was dropped between its fork and its record is no leak.
#[test]
fn a_machine_that_was_about_to_start_is_none() {
    let (pid, left) = torn_down_after(async |run| {
        run.journal.intent(Effect::Process { node: "first".into() }).unwrap();
        start_sleeper(run).await
    });
    assert_eq!(left, Vec::<String>::new());
    assert!(is_gone(pid));
}

#[test]
fn a_tap_that_is_of_no_machine() {
    let (_, left) = torn_down_after(async |run| {
        provisioned(run).await.unwrap();
        let device = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
        make_persistent_tap(&device, "extra0").unwrap();
    });
    assert_eq!(left.len(), 1);
    assert!(left[0].starts_with("link `extra0`, which is not of the framework"), "{left:?}");
}

#[test]
fn files_of_no_machine() {
    let (paths, left) = torn_down_after(async |run| {
        provisioned(run).await.unwrap();
        let paths = [run.dir.path(), run.scratch.path()].map(|dir| dir.join("forgotten"));
        paths.iter().for_each(|path| fs::write(path, "").unwrap());
        paths
    });
    assert_eq!(left, paths.map(|path| format!("{}, which no record names", path.display())));
}

/// The kernel's own word for it: what a runner sees on its pipe is open for as long as the process lives.
#[test]
fn a_vmm_holds_the_output_of_its_test() {
    let (held, _) = torn_down_after(async |run| {
        let pid = start_sleeper(run).await;
        let output = fs::read_link("/proc/self/fd/1").unwrap();
        let held = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let held: Vec<_> = held.filter(|fd| fd.file_name() != "1" && fd.file_name() != "2").collect();
        held.iter().any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == output))
    });
    assert!(held);
}
