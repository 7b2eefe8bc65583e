//! What is left of a test, and what is said when it fails.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use rstest::rstest;
use serde_json::Value;
use tempfile::TempDir;
use vmtest_tests::{Ended, Victim};

/// Tests that are run by the tests below, each in a process of its own.
mod victims {
    use std::future::pending;

    use vmtest::{
        prelude::*,
        spec::{Allow, Fake, Fault, Rung},
    };

    /// A line on the console of a machine, as its kernel would print it.
    async fn on_console(node: &Node, line: &str) -> Result {
        node.sh(format!("echo '{line}' >/dev/console")).await?;
        node.wait_for_console(line).await?;
        Ok(())
    }

    const OOM: &str = "Out of memory: Killed process 311";

    #[vm_test(backend = "fake")]
    #[ignore = "run by what_was_done_is_there_after_sigkill"]
    async fn is_killed(node: Node, artifacts: Artifacts) -> Result {
        step("the first step");
        node.sh("echo out; echo err >&2").await?;
        assert_eq!(node.sh("exit 3").unchecked().await?.code(), Some(3));
        node.write("/tmp/x", "content").await?;
        let kept = artifacts.save("below/mine.txt", "mine")?;
        on_console(&node, "a line of the console").await?;
        println!("all is done, {}", kept.display());
        node.sh("sleep 1000").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn fails(web: Node, db: Node) -> Result {
        db.sh("seq 100000").await?;
        db.kill().await?;
        web.sh("echo why >&2; exit 7").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by the_first_cause_is_that_of_another_node"]
    async fn waits_for_another(web: Node, db: Node) -> Result {
        on_console(&db, OOM).await?;
        web.wait_for_port(80).within(Duration::from_secs(1)).await?;
        Ok(())
    }

    #[vm_test(backend = "fake", timeout = "3s")]
    #[ignore = "run by what_was_awaited_is_named"]
    async fn awaits(web: Node) -> Result {
        eventually("the moon is full", Duration::from_secs(100), async || web.sh("sleep 50; false").await).await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_machine_that_ended_by_itself_is_the_first_cause"]
    async fn loses_a_machine(web: Node, _db: Node) -> Result {
        _db.sh("poweroff -f").unchecked().await.ok();
        _db.wait_for_port(1).await.ok();
        web.sh("false").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by what_a_kernel_reports_fails_a_test"]
    async fn reports(node: Node) -> Result {
        on_console(&node, OOM).await
    }

    #[vm_test(backend = "fake", allow("oom", "segfault"))]
    #[ignore = "run by what_a_kernel_reports_fails_a_test"]
    async fn reports_what_is_allowed(node: Node) -> Result {
        on_console(&node, OOM).await
    }

    #[test]
    #[ignore = "run by what_a_kernel_reports_fails_a_test"]
    fn reports_what_the_builder_allows() -> Result {
        let cluster = Cluster::builder().name("allows").backend("fake").allow(Allow::Oom).node(NodeSpec::new("node"));
        cluster.run(async |cluster| on_console(&cluster.node("node")?, OOM).await)
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_console_of_anything_is_kept"]
    async fn prints_anything(node: Node) -> Result {
        node.sh("head -c 3000000 /dev/urandom >/dev/console; echo; echo >/dev/console").await?;
        node.sh("printf '\\377\\376'; false").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_machine_that_answers_nothing_does_not_hold_up_a_failure"]
    async fn is_paused(node: Node, other: Node) -> Result {
        node.pause().await?;
        other.sh("false").await?;
        Ok(())
    }

    #[vm_test(requires(screenshot))]
    #[ignore = "run by a_failure_leaves_what_a_screen_showed"]
    async fn fails_with_a_screen(node: Node) -> Result {
        node.sh("false").await?;
        Ok(())
    }

    #[test]
    #[ignore = "run by a_machine_that_never_answers_has_evidence_too"]
    fn never_answers() -> Result {
        let mute = NodeSpec::new("mute").fake(Fake::new().fault(Fault::Stops(Rung::NetworkAnswers)));
        let cluster = Cluster::builder().backend("fake").node(mute).node(NodeSpec::new("other"));
        cluster.run(async |_| {})
    }

    #[test]
    #[ignore = "run by a_program_can_keep_nothing"]
    fn keeps_nothing() -> Result {
        let cluster = Cluster::builder().backend("fake").node(NodeSpec::new("node")).keep(false);
        cluster.run(async |cluster| cluster.node("node")?.sh("false").await.map(drop))
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn passes(_node: Node) {}

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_signal_leaves_everything"]
    async fn waits(node: Node) {
        println!("{} is up", node.name());
        pending::<()>().await;
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by a_panic_has_a_first_cause"]
    async fn panics(_node: Node) {
        panic!("the words of the body");
    }
}

/// What is left of the attempts of one victim.
struct Left {
    root: TempDir,
}

impl Left {
    fn new() -> Self {
        Self { root: TempDir::new().expect("a temporary directory") }
    }

    fn victim(&self, name: &str) -> Victim {
        Victim::new(name).env("VMTEST_ARTIFACTS", self.root.path())
    }

    fn attempts(&self) -> Vec<PathBuf> {
        let tests = fs::read_dir(self.root.path()).expect("it is there").flatten();
        let tests = tests.filter(|test| test.file_name() != "history");
        let attempts = tests.flat_map(|test| fs::read_dir(test.path()).expect("a directory").flatten());
        attempts.map(|attempt| attempt.path()).collect()
    }

    fn attempt(&self) -> PathBuf {
        let attempts = self.attempts();
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        attempts[0].clone()
    }
}

fn text(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    String::from_utf8(bytes).expect("it is text")
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&text(path)).expect("it is JSON")
}

fn timeline(attempt: &Path) -> Vec<Value> {
    let lines = text(&attempt.join("timeline.jsonl"));
    lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The lines that the framework has printed of a failure: those from its first word to the line that runs it again.
fn printed(ended: &Ended, first: &str) -> Vec<String> {
    let from = ended.text().find(first).unwrap_or_else(|| panic!("no `{first}` in {}", ended.text()));
    let lines = ended.text()[from..].lines().map(str::to_owned);
    let mut printed: Vec<_> = lines.collect();
    let last = printed.iter().position(|line| line.starts_with("  again: ")).expect("it says how to see it again");
    printed.truncate(last + 1);
    printed
}

#[test]
fn what_was_done_is_there_after_sigkill() {
    let left = Left::new();
    let mut running = left.victim("is_killed").start();
    let said = running.wait_for("all is done");
    let attempt = left.attempt();
    while !timeline(&attempt).iter().any(|event| event["what"] == "sleep 1000") {
        std::thread::yield_now();
    }
    running.signal(Signal::SIGKILL);
    running.finish();

    assert!(attempt.join("started.json").exists() && !attempt.join("verdict.json").exists());
    assert_eq!(json(&attempt.join("started.json"))["test"], "evidence::victims::is_killed");
    for file in ["spec.json", "plan.json", "nodes/node/launch.json"] {
        assert!(json(&attempt.join(file)).is_object(), "{file}");
    }
    let events = timeline(&attempt);
    let of = |kind: &str| events.iter().filter(|event| event["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("reached").len(), 6);
    assert_eq!(of("step")[0]["what"], "the first step");
    let states: Vec<_> = of("state").iter().map(|event| event["state"].clone()).collect();
    assert_eq!(states, ["booting", "running"]);
    let command = |what: &str| {
        let began = *of("began").iter().find(|event| event["what"] == what).expect("it has begun");
        (began.clone(), of("ended").into_iter().find(|event| event["id"] == began["id"]).cloned())
    };
    let (began, ended) = command("echo out; echo err >&2");
    assert_eq!((&began["kind"], &began["node"]), (&"command".into(), &"node".into()));
    let ended = ended.expect("it has ended");
    assert_eq!(
        (&ended["code"], &ended["stdout"]["text"], &ended["stderr"]["text"]),
        (&0.into(), &"out\n".into(), &"err\n".into())
    );
    assert_eq!(command("exit 3").1.expect("it has ended")["code"], 3);
    assert!(command("sleep 1000").1.is_none(), "it was under way");
    assert!(of("began").iter().any(|event| event["kind"] == "copy" && event["what"] == "write /tmp/x, 7 bytes"));
    let times: Vec<_> = events.iter().map(|event| event["at"].as_f64().expect("every event has a time")).collect();
    assert!(times.iter().all(|at| *at >= 0.0) && times.last() > times.first(), "{times:?}");
    let console = text(&attempt.join("nodes/node/console.log"));
    let line = console.lines().find(|line| line.ends_with(" a line of the console")).expect("it was printed");
    assert!(line.trim().split(' ').next().is_some_and(|time| time.parse::<f64>().is_ok()), "{line}");
    assert_eq!(text(&attempt.join("saved/below/mine.txt")), "mine");
    assert!(said.contains(&attempt.join("saved/below/mine.txt").display().to_string()));
}

#[test]
fn a_failure_leaves_what_says_why() {
    let left = Left::new();
    let ended = left.victim("fails").run().assert_failed_with(&["`echo why >&2; exit 7` ended with exit code 7"]);
    ended.assert_nothing_left();
    let attempt = left.attempt();
    let verdict = json(&attempt.join("verdict.json"));
    assert_eq!(verdict["verdict"], "failed");
    for file in ["addresses", "processes", "disks", "memory"] {
        assert!(!text(&attempt.join(format!("nodes/web/{file}.txt"))).is_empty(), "{file}");
    }
    let unreachable = json(&attempt.join("nodes/db/vmm.json"));
    assert_eq!((&unreachable["state"], &unreachable["guest_not_asked"]), (&"off".into(), &"it is off".into()));
    let network = json(&attempt.join("network.json"));
    let links = network["links"]["links"].as_array().expect("links");
    assert!(
        links.iter().any(|link| link["addresses"].as_array().is_some_and(|all| all.contains(&"10.77.0.1/24".into())))
    );
    let neighbours = network["links"]["neighbours"].as_array().expect("neighbours");
    assert!(neighbours.iter().any(|neighbour| neighbour["ip"] == "10.77.0.11"), "{neighbours:?}");
    let long = timeline(&attempt).into_iter().find_map(|event| Some(event["stdout"]["file"].as_str()?.to_owned()));
    assert!(text(&attempt.join(long.expect("a long output is a file"))).ends_with("100000\n"));

    let said = printed(&ended, "node `web`: `echo why");
    assert!(said.len() <= 40, "{said:#?}");
    let said = said.join("\n");
    for part in [
        "failed: `echo why >&2; exit 7` on `web`: exit code 7",
        "nothing was anomalous",
        &format!("everything: {}", attempt.display()),
        "by cargo alone: ",
        "cargo test -p vmtest-tests --test suite -- --exact evidence::victims::fails --include-ignored",
        &format!("again: cargo vmtest repro {}", attempt.display()),
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
}

#[test]
fn the_first_cause_is_that_of_another_node() {
    let left = Left::new();
    let ended = left.victim("waits_for_another").run();
    let said = printed(&ended, "node `web`: waited").join("\n");
    for part in [
        "failed: until somebody listens on port 80 on `web`",
        "earliest anomaly: an out-of-memory kill on `db`, 1.",
        "    Out of memory: Killed process 311",
        "last lines of the console of `db`:",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    let first = json(&left.attempt().join("first-cause.json"));
    assert_eq!(first["node"], "db");
}

#[test]
fn what_was_awaited_is_named() {
    let said = printed(&Left::new().victim("awaits").run(), "the test has not ended").join("\n");
    assert!(said.contains("awaited: until the moon is full, for "), "{said}");
    assert!(said.contains("awaited: `sleep 50; false` on `web`, for "), "{said}");
}

#[test]
fn a_machine_that_ended_by_itself_is_the_first_cause() {
    let said = printed(&Left::new().victim("loses_a_machine").run(), "node `web`: `false`").join("\n");
    assert!(said.contains("earliest anomaly: the machine ended by itself on `db`"), "{said}");
}

#[test]
fn a_panic_has_a_first_cause() {
    let left = Left::new();
    let ended = left.victim("panics").run().assert_failed_with(&["the words of the body", "first cause, "]);
    assert_eq!(printed(&ended, "first cause, ").len(), 5, "{}", ended.text());
    assert_eq!(text(&left.attempt().join("failure.txt")), "the words of the body");
}

#[rstest]
#[case::fails("reports", Some("node `node`: its kernel has reported an out-of-memory kill"))]
#[case::allowed("reports_what_is_allowed", None)]
#[case::allowed_by_the_builder("reports_what_the_builder_allows", None)]
fn what_a_kernel_reports_fails_a_test(#[case] victim: &str, #[case] said: Option<&str>) {
    let left = Left::new();
    let ended = left.victim(victim).run();
    match said {
        Some(said) => drop(ended.assert_failed_with(&[said, "Out of memory: Killed process 311", "`allow(\"oom\")`"])),
        None => drop(ended.assert_passed()),
    }
    let anomalies = timeline(&left.attempt()).into_iter().filter(|event| event["event"] == "anomaly");
    let anomalies: Vec<_> = anomalies.map(|event| (event["sign"].clone(), event["allowed"].clone())).collect();
    assert_eq!(anomalies, [("oom".into(), said.is_none().into())]);
}

#[test]
fn a_program_can_keep_nothing() {
    let left = Left::new();
    drop(left.victim("keeps_nothing").run().assert_failed_with(&["`false` ended with exit code 1"]));
    assert_eq!(left.attempts(), Vec::<PathBuf>::new());
}

#[test]
fn of_what_passes_the_newest_are_kept() {
    let left = Left::new();
    for _ in 0..5 {
        left.victim("passes").run().assert_passed().assert_nothing_left();
    }
    assert_eq!(left.attempts().len(), 3);
    for attempt in left.attempts() {
        assert_eq!(json(&attempt.join("verdict.json"))["verdict"], "passed");
    }
}

#[test]
fn a_signal_leaves_everything() {
    let left = Left::new();
    let mut running = left.victim("waits").start();
    running.wait_for("node is up");
    running.signal(Signal::SIGTERM);
    let ended = running.finish();
    assert_eq!(ended.signal(), Some(Signal::SIGTERM));
    assert!(ended.text().contains("was ended by SIGTERM"), "{}", ended.text());
    let attempt = left.attempt();
    assert_eq!(json(&attempt.join("verdict.json"))["verdict"], "failed");
    assert!(attempt.join("nodes/node/processes.txt").exists());
}

#[test]
fn a_console_of_anything_is_kept() {
    let left = Left::new();
    let said = ["`printf '\\377\\376'; false` ended with exit code 1"];
    left.victim("prints_anything").run().assert_failed_with(&said).assert_nothing_left();
    assert!(text(&left.attempt().join("nodes/node/console.log")).len() > 3_000_000);
    timeline(&left.attempt());
}

#[test]
fn a_machine_that_answers_nothing_does_not_hold_up_a_failure() {
    let left = Left::new();
    left.victim("is_paused").run().assert_failed_with(&["`false` ended with exit code 1"]).assert_nothing_left();
    let vmm = json(&left.attempt().join("nodes/node/vmm.json"));
    assert_eq!(vmm["guest_not_asked"], "it is paused");
    // In the words of QEMU, of cloud-hypervisor and Firecracker, and of the kernel about a fake's first process.
    let says = vmm["vmm_says"].to_string();
    assert!([r#""paused""#, r#""Paused""#, r#""T""#].iter().any(|state| says.contains(state)), "{says}");
    assert!(left.attempt().join("nodes/other/processes.txt").exists());
}

#[test]
fn a_machine_that_never_answers_has_evidence_too() {
    let left = Left::new();
    // A tenth of the limit for boots: three seconds.
    let ended = left.victim("never_answers").env("VMTEST_TIMEOUT_SCALE", "0.1").run();
    ended.assert_failed_with(&["not all machines were ready", "node `mute`", "first cause, "]).assert_nothing_left();
    let vmm = json(&left.attempt().join("nodes/mute/vmm.json"));
    assert_eq!((&vmm["guest_not_asked"], &vmm["waits_for"]), (&"it is booting".into(), &"network answers".into()));
    assert!(left.attempt().join("nodes/other/processes.txt").exists());
}

/// A failure is told as it is, where its evidence finds no place.
#[rstest]
#[case::full("mount -t tmpfs -o size=8k none \"$VMTEST_ARTIFACTS\"")]
#[case::read_only("mount -t tmpfs -o ro none \"$VMTEST_ARTIFACTS\"")]
fn a_disk_without_space_hides_nothing(#[case] mount: &str) {
    let artifacts = TempDir::new().expect("a temporary directory");
    let within = format!("{mount} && exec \"$0\" \"$@\"");
    let victim = Victim::within(&["unshare", "--mount", "sh", "-c", &within], "fails");
    let ended = victim.env("VMTEST_ARTIFACTS", artifacts.path()).run();
    let said = ["`echo why >&2; exit 7` ended with exit code 7", "failed: `echo why >&2; exit 7` on `web`"];
    ended.assert_failed_with(&said).assert_nothing_left();
}

mod qemu {
    use super::*;

    #[test]
    fn a_failure_leaves_what_a_screen_showed() {
        let left = Left::new();
        let victim = left.victim("fails_with_a_screen").env("VMTEST_BACKEND", "qemu");
        victim.run().assert_failed_with(&["`false` ended with exit code 1"]).assert_nothing_left();
        let screen = left.attempt().join("nodes/node/screen.png");
        assert!(fs::read(screen).expect("it is there").starts_with(b"\x89PNG\r\n"));
    }
}
