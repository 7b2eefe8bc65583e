//! Machines that are up and do not answer any more, when a test fails: what is kept of them, and what is said.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;
use vmtest::evidence::Kept;
use vmtest_tests::{Ended, Victim};

/// Tests that are run by the tests below, each in a process of its own.
mod victims {
    use vmtest::prelude::*;

    /// Nobody is answered over SSH from now on. The server that has taken this command stops too, so the console tells.
    async fn stop_ssh(node: &Node) -> Result {
        let _stops = node.spawn("kill -STOP $(pidof dropbear); echo all are stopped >/dev/console").await?;
        node.wait_for_console("all are stopped").await?;
        Ok(())
    }

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn hangs(web: Node, db: Node) -> Result {
        stop_ssh(&web).await?;
        db.sh("false").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_command_to_a_machine_that_hangs_ends_at_its_limit"]
    async fn asks_in_vain(web: Node) -> Result {
        stop_ssh(&web).await?;
        web.sh("echo are you there").timeout(Duration::from_secs(1)).await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_command_to_a_machine_that_hangs_ends_at_its_limit"]
    async fn hangs_meanwhile(web: Node) -> Result {
        let all = "echo before; kill -STOP $(pidof dropbear); sleep 1000";
        web.sh(all).timeout(Duration::from_secs(1)).await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by what_was_said_before_a_machine_hung_is_kept"]
    async fn hangs_in_the_middle(web: Node) -> Result {
        // What is asked about sockets does not end, and nothing in the guest ends it.
        web.write("/bin/journalctl", "#!/bin/sh\necho the journal\n").await?;
        web.write("/bin/ss", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 1; done\n").await?;
        web.sh("chmod 755 /bin/journalctl /bin/ss; false").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by what_a_journal_says_is_the_first_cause"]
    async fn has_a_journal(web: Node, db: Node) -> Result {
        let line = "[    9.500000] db kernel: Out of memory: Killed process 311 (db)";
        db.write("/bin/journalctl", format!("#!/bin/sh\necho '{line}'\n")).await?;
        db.sh("chmod 755 /bin/journalctl").await?;
        web.sh("false").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_console_without_end_holds_nothing_up"]
    async fn prints_without_end(node: Node) -> Result {
        let lines = node.spawn("yes a line without end >/dev/console").await?;
        let none = node.spawn("tr '\\0' x </dev/zero >/dev/console").await?;
        // Nobody ends them before evidence is taken.
        std::mem::forget((lines, none));
        node.wait_for_console("a line without end").await?;
        node.sh("false").await?;
        Ok(())
    }
}

/// Runs a victim, which must fail with these words, and reads what is kept of it.
fn failed(victim: &str, backend: &str, words: &str) -> (TempDir, Kept, Ended) {
    let artifacts = TempDir::new().expect("a temporary directory");
    let victim = Victim::new(victim).env("VMTEST_ARTIFACTS", artifacts.path()).env("VMTEST_BACKEND", backend);
    let ended = victim.run().assert_failed_with(&[words]);
    ended.assert_nothing_left();
    let kept = Kept::all(artifacts.path()).remove(0);
    (artifacts, kept, ended)
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("it is there")).expect("it is JSON")
}

/// A machine that has stopped to answer takes its time from nobody else, and hides nothing.
fn assert_told(kept: &Kept, ended: &Ended) {
    let why = "it has not answered over SSH within 10 s";
    for said in ["failed: `false` on `db`: exit code 1", &format!("nothing from inside `web`: {why}\n")] {
        assert!(ended.text().contains(said), "no `{said}` in\n{}", ended.text());
    }
    assert_eq!(kept.first_cause["node"], "db", "{}", kept.first_cause);
    let vmm = json(&kept.dir.join("nodes/web/vmm.json"));
    assert_eq!((&vmm["guest_not_asked"], &vmm["state"]), (&why.into(), &"running".into()), "{vmm}");
    assert_eq!(vmm["virtual_cpus_run"], true, "{vmm}");
    assert!(!kept.dir.join("nodes/web/processes.txt").exists() && kept.dir.join("nodes/db/processes.txt").exists());
    let events: Vec<_> = kept.events.iter().filter(|event| event["event"] == "unanswered").collect();
    assert_eq!((events.len(), &events[0]["node"], &events[0]["why"]), (1, &"web".into(), &why.into()));
}

#[test]
fn a_machine_whose_ssh_hangs_hides_nothing() {
    let (_artifacts, kept, ended) = failed("hangs", "fake", "`false` ended with exit code 1");
    assert_told(&kept, &ended);
}

#[test]
fn a_command_to_a_machine_that_hangs_ends_at_its_limit() {
    let words = "`echo are you there` did not end within 1.0 s and has not begun: the guest does not answer over SSH";
    let (_artifacts, kept, _) = failed("asks_in_vain", "fake", words);
    assert!(kept.failure.contains(words), "{}", kept.failure);
    // Its own words come first, and what it has printed is not lost.
    let words = "sleep 1000` did not end within 1.0 s and could not be killed: ";
    let (_artifacts, kept, _) = failed("hangs_meanwhile", "fake", words);
    assert!(kept.failure.contains(words) && kept.failure.contains("\n  stdout: before"), "{}", kept.failure);
}

#[test]
fn what_was_said_before_a_machine_hung_is_kept() {
    let (_artifacts, kept, ended) = failed("hangs_in_the_middle", "fake", "; false` ended with exit code 1");
    let said = "nothing from inside `web`: it has not answered everything over SSH within 10 s\n";
    assert!(ended.text().contains(said), "{}", ended.text());
    let there = |file: &str| fs::metadata(kept.dir.join("nodes/web").join(file)).is_ok_and(|meta| meta.len() > 0);
    assert!(there("journal.txt"));
    assert!(!there("processes.txt"), "it comes behind what hung");
}

#[test]
fn what_a_journal_says_is_the_first_cause() {
    let (_artifacts, kept, ended) = failed("has_a_journal", "fake", "`false` ended with exit code 1");
    let said = "earliest anomaly: an out-of-memory kill on `db`, ";
    assert!(ended.text().contains(said), "{}", ended.text());
    assert_eq!(kept.first_cause["node"], "db", "{}", kept.first_cause);
    assert!(kept.dir.join("nodes/db/journal.txt").exists());
}

#[test]
fn a_console_without_end_holds_nothing_up() {
    let (_artifacts, kept, ended) = failed("prints_without_end", "fake", "`false` ended with exit code 1");
    assert!(ended.text().contains("  failed: `false` on `node`: exit code 1"), "{}", ended.text());
    assert!(kept.console("node").iter().any(|line| line.text == "a line without end"));
}

mod real {
    use super::*;

    #[test]
    fn a_machine_whose_ssh_hangs_hides_nothing() {
        let (_artifacts, kept, ended) = failed("hangs", "qemu", "`false` ended with exit code 1");
        assert_told(&kept, &ended);
    }
}
