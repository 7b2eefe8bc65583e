//! The clocks of guests, on the clock of their run.

use tempfile::TempDir;
use vmtest::evidence::Kept;
use vmtest_tests::Victim;

/// Tests that are run by the tests below, each in a process of its own.
mod victims {
    use vmtest::prelude::*;

    #[vm_test(backend = "qemu")]
    #[ignore = "run by the_log_of_a_kernel_is_placed_where_its_console_is"]
    async fn fails(node: Node) -> Result {
        node.sh("false").await?;
        Ok(())
    }
}

mod real {
    use super::*;

    #[test]
    fn the_log_of_a_kernel_is_placed_where_its_console_is() {
        let artifacts = TempDir::new().expect("a temporary directory");
        let victim = Victim::new("fails").env("VMTEST_ARTIFACTS", artifacts.path());
        drop(victim.run().assert_failed_with(&["`false` ended with exit code 1"]));
        let kept = &Kept::all(artifacts.path())[0];
        let clocks: Vec<_> = kept.events.iter().filter(|event| event["event"] == "guest_clock").collect();
        assert_eq!(clocks.len(), 2, "when it is ready, and before its logs are taken: {clocks:?}");
        let seconds = |event: &serde_json::Value, of: &str| event[of].as_f64().expect("a number");
        let [first, last] = [clocks[0], clocks[1]].map(|clock| (seconds(clock, "offset"), seconds(clock, "within")));
        assert!((first.0 - last.0).abs() < first.1 + last.1 + 1.0, "{clocks:?}");

        let (log, console) = (kept.guest_log("node"), kept.console("node"));
        let is_it = |text: &str| text.contains("Run /init as init process");
        let logged = log.iter().find(|line| is_it(&line.text)).expect("the kernel logs it").at;
        let shown = console.iter().find(|line| is_it(&line.text)).expect("its console shows it").at;
        // The kernel counts from a little after its start, and the host reads a console when it comes to it.
        assert!((logged - shown).abs() < 5.0, "logged at {logged}, shown at {shown}");
    }
}
