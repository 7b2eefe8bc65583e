//! Saving machines and going back: what is refused, and what is left.

use vmtest::{Kind, State, prelude::*};
use vmtest_tests::{Victim, run_dir};

mod victims {
    use super::*;

    #[vm_test(backend = "fake", requires(snapshot))]
    #[ignore = "run by a_backend_that_saves_nothing_is_refused_at_once"]
    async fn only_fakes(_node: Node) {}

    #[vm_test(backend = "fake")]
    #[ignore = "run by what_was_saved_does_not_outlive_a_killed_test"]
    async fn passes(_node: Node) {}

    #[vm_test(requires(snapshot))]
    #[ignore = "run by what_was_saved_does_not_outlive_a_killed_test"]
    async fn saves(#[node(disk = "32MiB")] node: Node) -> Result {
        let _snapshot = node.snapshot().await?;
        println!("the machine is saved");
        std::future::pending::<()>().await;
        Ok(())
    }
}

#[vm_test(backend = "qemu, fake")]
async fn a_test_says_that_it_saves_machines(node: Node) -> Result {
    let error = node.snapshot().await.expect_err("the test does not say so");
    assert_eq!(error.kind(), Kind::Spec);
    assert!(error.to_string().contains("say `requires(snapshot)` on the test"), "{error}");
    Ok(())
}

#[test]
fn a_backend_that_saves_nothing_is_refused_at_once() {
    let ended = Victim::new("only_fakes").run();
    ended.assert_failed_with(&["`requires(snapshot)`: `fake` cannot do it", "`qemu` can"]).assert_nothing_left();
}

/// What needs a real machine.
mod real {
    use super::*;

    #[vm_test(requires(snapshot))]
    async fn what_cannot_be_saved_or_restored_says_why(node: Node, other: Node, cluster: Cluster) -> Result {
        let scratch = run_dir(cluster.id()).join("other/scratch");
        let snapshot = other.snapshot().await?;
        assert_eq!(scratch.read_dir()?.count(), 1);
        let error = node.restore(&snapshot).await.expect_err("it is one of another machine");
        assert!(error.to_string().contains("the snapshot is one of `other`"), "{error}");
        assert_eq!((error.kind(), node.state()), (Kind::Spec, State::Running));
        other.kill().await?;
        let error = other.snapshot().await.expect_err("it is off");
        assert!(error.to_string().contains("cannot snapshot a machine that is off"), "{error}");
        drop(snapshot);
        assert_eq!(scratch.read_dir()?.count(), 0);
        other.start().await?;
        Ok(())
    }

    #[test]
    fn what_was_saved_does_not_outlive_a_killed_test() {
        let mut running = Victim::new("saves").start();
        running.wait_for("the machine is saved");
        running.signal(nix::sys::signal::Signal::SIGKILL);
        let killed = running.finish();
        drop(Victim::new("passes").beside(killed.runs()).run().assert_passed());
        killed.assert_nothing_left();
    }
}
