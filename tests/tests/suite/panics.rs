//! Panics of other tasks and threads than the body's own. The clusters here have no machines, so that they cost
//! milliseconds.

use std::{
    panic::{catch_unwind, panic_any},
    thread,
    time::{Duration, Instant},
};

use rstest::rstest;
use vmtest::{prelude::*, spec::Allow};
use vmtest_tests::Victim;

/// Tests that fail, each run by a test below in a process of its own.
mod victims {
    use std::{future::pending, thread};

    use vmtest::prelude::*;

    /// The line of the panic in `task`.
    pub(super) const TASK_LINE: u32 = line!() + 5;

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_panic_elsewhere_fails_the_test_at_once"]
    async fn task(_cluster: Cluster) {
        tokio::spawn(async { panic!("the words of the task") });
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_panic_elsewhere_fails_the_test_at_once"]
    async fn blocking(_cluster: Cluster) {
        tokio::task::spawn_blocking(|| panic!("the words of the closure"));
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_panic_elsewhere_fails_the_test_at_once"]
    async fn local(_cluster: Cluster) {
        let set = tokio::task::LocalSet::new();
        set.spawn_local(async { panic!("the words of the local task") });
        set.run_until(pending::<()>()).await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_panic_elsewhere_fails_the_test_at_once"]
    async fn named_thread(_cluster: Cluster) {
        let work = || panic!("the words of the thread");
        thread::Builder::new().name("worker".to_owned()).spawn(work).expect("a thread");
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_panic_elsewhere_fails_the_test_at_once"]
    async fn thread_of_a_thread(_cluster: Cluster) {
        thread::spawn(|| thread::spawn(|| panic!("the words of the inner thread")));
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_panic_elsewhere_fails_the_test_at_once"]
    async fn outside(cluster: Cluster) {
        cluster.outside(async || drop(tokio::spawn(async { panic!("the words from outside") }))).await;
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_panic_elsewhere_fails_the_test_at_once"]
    async fn entered(cluster: Cluster) {
        cluster.enter(async || drop(tokio::spawn(async { panic!("the words from inside") }))).await;
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by a_hook_of_the_user_stands_before_ours"]
    async fn hooked(_cluster: Cluster) {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            println!("seen by the user's hook");
            previous(info);
        }));
        tokio::spawn(async { panic!("the words of the task") });
        pending::<()>().await;
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_panic_that_the_body_has_seen_fails_the_test_too"]
    async fn seen(_cluster: Cluster) {
        assert!(tokio::spawn(async { panic!("the words of the task") }).await.is_err());
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by what_the_body_said_after_a_panic_elsewhere_is_shown_after_it"]
    async fn both(_cluster: Cluster) {
        thread::spawn(|| panic!("the words of the thread")).join().expect("the words of the body");
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by what_the_body_said_after_a_panic_elsewhere_is_shown_after_it"]
    async fn thread_and_failure(_cluster: Cluster) -> Result {
        let joined = thread::spawn(|| panic!("the words of the thread")).join();
        joined.map_err(|_| Failure::msg("the words of the body"))
    }

    #[vm_test(backend = "qemu, fake", timeout = "10m")]
    #[ignore = "run by many_panics_are_not_all_shown"]
    async fn many(_cluster: Cluster) {
        for n in 0..100 {
            drop(thread::spawn(move || panic!("panic {n}.")).join());
        }
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by output_is_captured_as_ever"]
    async fn prints_and_passes(_cluster: Cluster) {
        println!("printed by the body");
        let caught = std::panic::catch_unwind(|| panic!("caught by the body"));
        assert!(caught.is_err());
    }
}

#[rstest]
#[case::task("task", "vmtest-body", "the words of the task")]
#[case::blocking("blocking", "vmtest-body", "the words of the closure")]
#[case::local("local", "panics::victims::local", "the words of the local task")]
#[case::named_thread("named_thread", "worker", "the words of the thread")]
#[case::thread_of_a_thread("thread_of_a_thread", "<unnamed>", "the words of the inner thread")]
#[case::outside("outside", "vmtest-outside", "the words from outside")]
#[case::entered("entered", "vmtest-engine", "the words from inside")]
fn a_panic_elsewhere_fails_the_test_at_once(#[case] victim: &str, #[case] thread: &str, #[case] words: &str) {
    let said = format!("thread `{thread}` panicked at tests/tests/suite/panics.rs:");
    let ended = Victim::new(victim).run().assert_failed_with(&[&said, words, "`allow(\"task-panic\")` lets it pass"]);
    assert!(!ended.text().contains("has not ended within"), "it waited for its deadline: {}", ended.text());
    ended.assert_nothing_left();
}

#[test]
fn a_panic_elsewhere_is_shown_with_its_place() {
    let said =
        format!("panicked at tests/tests/suite/panics.rs:{}:30: the words of the task\na panic on", victims::TASK_LINE);
    Victim::new("task").run().assert_failed_with(&[&said]).assert_nothing_left();
}

#[test]
fn a_hook_of_the_user_stands_before_ours() {
    let said = ["seen by the user's hook", "the words of the task\na panic on"];
    Victim::new("hooked").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_panic_that_the_body_has_seen_fails_the_test_too() {
    Victim::new("seen").run().assert_failed_with(&["the words of the task\na panic on"]).assert_nothing_left();
}

/// The text from here on: what the panics print themselves comes before.
fn verdict(text: &str) -> &str {
    &text[text.find("thread `").unwrap_or_else(|| panic!("there is no verdict: {text}"))..]
}

#[rstest]
#[case::panics("both")]
#[case::fails("thread_and_failure")]
fn what_the_body_said_after_a_panic_elsewhere_is_shown_after_it(#[case] victim: &str) {
    let ended = Victim::new(victim).run().assert_failed_with(&["the words of the thread", "the words of the body"]);
    let verdict = verdict(ended.text());
    assert!(verdict.find("of the thread") < verdict.find("of the body"), "{}", ended.text());
    ended.assert_nothing_left();
}

#[test]
fn many_panics_are_not_all_shown() {
    let ended = Victim::new("many").run().assert_failed_with(&["panic 0."]);
    assert!(!verdict(ended.text()).contains("panic 99."), "{}", ended.text());
    ended.assert_nothing_left();
}

#[test]
fn output_is_captured_as_ever() {
    let capture = |command: &mut std::process::Command| {
        *command = {
            let mut same = std::process::Command::new(command.get_program());
            same.args(command.get_args().filter(|arg| *arg != "--nocapture"));
            same.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
            same
        };
    };
    let ended = Victim::new("prints_and_passes").with(capture).run().assert_passed();
    assert!(!ended.text().contains("by the body"), "{}", ended.text());
    let ended = Victim::new("task").with(capture).run().assert_failed_with(&["---- panics::victims::task stdout ----"]);
    let (_, captured) = ended.text().split_once("---- panics::victims::task stdout ----").expect("it was looked for");
    assert_eq!(captured.matches("the words of the task").count(), 2, "{}", ended.text());
}

#[vm_test(backend = "qemu, fake", allow("task-panic"))]
async fn a_panic_elsewhere_can_be_allowed(_cluster: Cluster) {
    let task = tokio::spawn(async { panic!("allowed") });
    assert!(task.await.is_err_and(|e| e.is_panic()));
    assert!(thread::spawn(|| panic_any(7)).join().is_err());
}

#[vm_test(backend = "qemu, fake")]
async fn a_panic_that_the_body_catches_on_its_own_thread_is_none(_cluster: Cluster) {
    assert!(catch_unwind(|| panic!("caught")).is_err());
}

#[vm_test(backend = "qemu, fake")]
#[should_panic(expected = "the words of the task")]
async fn a_panic_elsewhere_can_be_expected(_cluster: Cluster) {
    drop(tokio::spawn(async { panic!("the words of the task") }).await);
}

#[test]
fn a_cluster_from_code_can_allow_panics_elsewhere() {
    let spec = || {
        Cluster::builder().backend("qemu").backend("fake").name("panics elsewhere").timeout(Duration::from_secs(600))
    };
    let body = async |_| assert!(thread::spawn(|| panic_any(7)).join().is_err());
    let failure = spec().run(body).expect_err("another thread panics");
    assert!(failure.to_string().contains("panics.rs:"), "{failure}");
    assert!(failure.to_string().contains("Box<dyn Any>"), "{failure}");
    spec().allow(Allow::TaskPanic).run(body).expect("it is allowed");
}

#[test]
fn panics_of_other_clusters_and_of_no_cluster_do_not_count() {
    let began = Instant::now();
    let passed = Cluster::builder().backend("qemu").backend("fake").name("calm").timeout(Duration::from_secs(600)).run(
        async |cluster: Cluster| {
            let from_here = Cluster::builder().backend("qemu").backend("fake").name("another").run(async |_| {
                drop(thread::spawn(|| panic!("of another cluster")).join());
            });
            assert!(from_here.is_err());
            drop(cluster);
        },
    );
    passed.expect("nothing of it has panicked");
    assert!(thread::spawn(|| panic!("of no cluster")).join().is_err());
    assert!(began.elapsed() < Duration::from_secs(60));
}

#[test]
fn an_observer_that_panics_harms_nobody() {
    let observed =
        Cluster::builder().backend("qemu").backend("fake").name("observed").observe(|_| panic!("of an observer"));
    observed.run(async |_| ()).expect("it passes");
}
