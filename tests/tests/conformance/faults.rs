//! The cases of backends whose machines can be told to fail.

use std::{thread, time::Instant};

use vmtest::{
    State,
    evidence::Rung,
    plan::Capabilities,
    prelude::*,
    spec::{Call, Capability, Fake, Fault},
};

use crate::Case;

/// What a machine that never gets ready is given.
const PATIENCE: Duration = Duration::from_secs(1);
/// What any other is given, on a host with much to do.
const AMPLE: Duration = Duration::from_secs(30);

pub(crate) const CASES: &[Case] = &[
    Case { name: "every_rung_that_is_missed_is_named", needs: faults, run: missed_rungs },
    Case { name: "every_death_on_the_ladder_is_seen", needs: faults, run: deaths },
    Case { name: "every_refused_call_of_a_boot_is_named", needs: faults, run: refused_calls },
    Case { name: "a_boot_that_failed_harms_no_other_machine", needs: faults, run: bad_neighbour },
];

fn faults(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::Faults)
}

/// What a boot with this fault says.
fn boot(backend: &str, fault: Fault, limit: Duration) -> String {
    let node = NodeSpec::new("odd").fake(Fake::new().fault(fault));
    let failed = Cluster::builder().backend(backend).timeout(limit).node(node).run(async |_| ());
    let said = failed.expect_err("it cannot come up").to_string();
    assert!(!said.contains("left behind"), "{fault:?}: {said}");
    said
}

fn missed_rungs(backend: &str) -> Result {
    let rungs = Rung::ALL.into_iter().skip(1).map(|rung| (Fault::Stops(rung), rung));
    let calls = [(Call::Launch, Rung::VmmAlive), (Call::Connect, Rung::ApiAnswers), (Call::Status, Rung::ApiAnswers)];
    let calls = calls.into_iter().map(|(call, rung)| (Fault::Hangs(call), rung));
    // Beside each other, because each takes all of its patience.
    thread::scope(|scope| {
        for (fault, rung) in rungs.chain(calls) {
            scope.spawn(move || {
                let said = boot(backend, fault, PATIENCE);
                assert!(said.contains(&format!("node `odd` waits for `{rung}`")), "{fault:?}: {said}");
            });
        }
    });
    Ok(())
}

fn deaths(backend: &str) -> Result {
    for rung in Rung::ALL {
        let began = Instant::now();
        let said = boot(backend, Fault::Dies(rung), AMPLE);
        assert!(said.contains("node `odd`: the machine ended with"), "{rung}: {said}");
        assert!(began.elapsed() < AMPLE, "{rung}");
        if rung >= Rung::NetworkAnswers {
            let said = boot(backend, Fault::Panics(rung), AMPLE);
            assert!(said.contains("node `odd`: the guest's kernel panicked"), "{rung}: {said}");
        }
    }
    Ok(())
}

fn refused_calls(backend: &str) -> Result {
    for call in [Call::Launch, Call::Connect, Call::Status] {
        let said = boot(backend, Fault::Refuses(call), AMPLE);
        assert!(said.contains(&format!("node `odd`: the fake VMM refuses the call `{call}`")), "{call}: {said}");
    }
    let said = boot(backend, Fault::RefusesKey, AMPLE);
    assert!(said.contains("the guest refuses the key of this run"), "{said}");
    Ok(())
}

fn bad_neighbour(backend: &str) -> Result {
    let builder = Cluster::builder().backend(backend).node(NodeSpec::new("good"));
    builder.run(async |cluster: Cluster| {
        let odd = NodeSpec::new("odd").fake(Fake::new().fault(Fault::Dies(Rung::SshBanner)));
        cluster.add_all([odd, NodeSpec::new("beside")]).await.expect_err("one of them dies");
        let good = cluster.node("good")?;
        assert_eq!(good.state(), State::Running);
        good.sh("true").await?;
        // The names are free again.
        cluster.add(NodeSpec::new("odd")).await?.sh("ping -c 1 -W 5 good").await?;
        Ok::<_, Failure>(())
    })
}
