//! On which backend a test runs.

use vmtest_tests::Victim;

/// Tests that say what they require.
mod victims {
    use std::sync::mpsc;

    use vmtest::{evidence::Event, prelude::*, spec::Capability};

    #[vm_test(backend = "fake", requires(own_kernel, faults, nested), nodes = 300)]
    #[ignore = "run by what_no_machine_can_is_refused_with_all_else"]
    async fn too_much(_cluster: Cluster) {}

    #[test]
    #[ignore = "run by what_is_required_is_found"]
    fn chooses() -> Result {
        let (tell, told) = mpsc::channel();
        let observe = move |event: &Event| {
            if let Event::Planned { backend, .. } = event {
                drop(tell.send(backend.clone()));
            }
        };
        let cluster = Cluster::builder().backend("qemu").backend("fake").requires(Capability::Faults);
        cluster.observe(observe).run(async |cluster| assert_eq!(cluster.plan().backend, "fake"))?;
        println!("{}", told.recv()?);
        Ok(())
    }
}

#[test]
fn what_no_machine_can_is_refused_with_all_else() {
    let said = [
        "cannot run, for 3 reasons",
        "`requires(own_kernel)`: `fake` cannot do it; `cloud-hypervisor` can, if `backend` and VMTEST_BACKEND let it; `qemu` can",
        "`requires(nested)`: `fake` cannot do it;",
        "300 nodes",
    ];
    Victim::new("too_much").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn what_is_required_is_found() {
    let ended = Victim::new("chooses").env("VMTEST_BACKEND", "auto").run().assert_passed();
    assert!(ended.text().contains("fake machines in namespaces of Linux"), "{}", ended.text());
    // On a host without it, because it is not there.
    assert!(ended.text().contains(" (not on qemu: "), "{}", ended.text());
    ended.assert_nothing_left();
}
