//! Machines that are none: that they are isolated, that they answer what was scripted, that they fail as they were told.

use std::{fs, path::Path};

use rstest::rstest;
use vmtest::{
    Kind, State,
    prelude::*,
    spec::{Call, Fake, Fault, Reply, Rung},
};
use vmtest_tests::Victim;

#[vm_test(backend = "fake")]
async fn a_fake_machine_is_a_machine([a, b]: [Node; 2]) -> Result {
    assert_eq!(a.sh("hostname; id -u; cat /proc/1/comm").await?.stdout(), "a\n0\nsh");
    a.sh("ping -c 1 b").await?;
    // The same port on both, because each has a network of its own.
    let mut servers = Vec::new();
    for node in [&a, &b] {
        servers.push(node.spawn("nc -ll -p 80 -e hostname").await?);
        node.wait_for_port(80).await?;
    }
    assert_eq!(a.sh("nc b 80 </dev/null").await?.stdout(), "b");
    // A program without a terminal of its own finds a console, which is no file that it could begin anew.
    b.sh("echo to the console >/dev/console").await?;
    b.wait_for_console("to the console").await?;
    assert!(b.console().iter().any(|line| line.contains("vmtest: ready")));
    Ok(())
}

/// Everything by which a root gets out of where it should stay.
const WAYS_OUT: &[&str] = &[
    "cat \"$f\"",
    "cat /proc/1/root/\"$f\" /proc/self/root/\"$f\" /proc/1/cwd/\"$f\"",
    "cd /; n=0; while [ $((n += 1)) -lt 50 ]; do cd ..; done; cat .\"$f\"",
    "mkdir /esc; cat <<'E' >/esc.sh\nchroot /esc /bin/true; cd ../../../../../../..; cat .\"$f\"\nE\nsh /esc.sh",
    "mkdir /m; mount -o remount,rw / ; umount -l /; cat \"$f\"",
    "mknod /dev/disk b 254 0 && mount /dev/disk /m && cat /m\"$f\"",
    "mount -t devtmpfs devtmpfs /m && ls /m/vda",
    "for p in /proc/[0-9]*; do cat $p/root\"$f\"; done",
];

/// Everything by which a root changes a machine that it shares.
const CHANGES: &[&str] = &[
    "echo 1 >/proc/sys/kernel/panic_on_oops",
    "echo /tmp/x >/proc/sys/kernel/core_pattern",
    "echo b >/proc/sysrq-trigger",
    "echo 1 >/sys/kernel/mm/ksm/run",
    "date -s 2001-01-01; [ \"$(date +%Y)\" = 2001 ]",
    "dmesg -c",
];

#[vm_test(backend = "fake")]
async fn the_files_of_the_host_are_neither_seen_nor_changed(node: Node, _cluster: Cluster) -> Result {
    // In two places of which one is a directory that machines have as well.
    let (here, common) = (tempfile::NamedTempFile::new_in(".")?, tempfile::NamedTempFile::new()?);
    for file in [&here, &common] {
        fs::write(file.path(), "of the host")?;
        let path = file.path().canonicalize()?;
        for way in WAYS_OUT {
            let output = node.sh(*way).env("f", &path).timeout(Duration::from_secs(10)).unchecked().await?;
            assert!(!output.stdout().contains("of the host"), "`{way}` shows {}", path.display());
        }
        // Written to in the machine, it is another file.
        node.write(path.to_string_lossy().as_ref(), "of the machine").await?;
        assert_eq!(fs::read_to_string(&path)?, "of the host");
        assert_eq!(node.read(path.to_string_lossy().as_ref()).await?, b"of the machine");
    }
    let before = seen_by_the_host();
    for change in CHANGES {
        let changed = node.sh(*change).timeout(Duration::from_secs(10)).unchecked().await?;
        assert!(!changed.success(), "`{change}` succeeds: {changed:?}");
    }
    node.sh("hostname elsewhere; ip link set lo down; mount -t tmpfs none /srv; rm -rf /bin /lib /etc")
        .unchecked()
        .await?;
    assert_eq!(seen_by_the_host(), before);
    assert!(Path::new("/bin").exists() && Path::new("/etc/passwd").exists());
    Ok(())
}

fn seen_by_the_host() -> Vec<String> {
    let files = ["/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/panic_on_oops"];
    files.iter().map(|path| fs::read_to_string(path).unwrap_or_default()).chain([mounts()]).collect()
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mounts").unwrap_or_default()
}

#[vm_test(backend = "fake")]
async fn nothing_of_the_test_is_in_a_machine(node: Node) -> Result {
    // Its own processes and no others, each with its own three descriptors and none of the test's.
    let processes = node.sh("for p in /proc/[0-9]*; do cat $p/comm; done").await?.stdout();
    assert!(processes.lines().all(|name| ["sh", "cat", "dd", "dropbear", "sleep"].contains(&name)), "{processes}");
    let first = node.sh("ls /proc/1/fd").await?.stdout();
    assert!(first.split_whitespace().all(|fd| fd.parse::<u32>().is_ok_and(|fd| fd <= 2 || fd >= 10)), "{first}");
    let environment = node.sh("tr '\\0' '\\n' </proc/1/environ").await?.stdout();
    assert_eq!(environment, "HOME=/root\nTERM=linux");
    Ok(())
}

#[vm_test(backend = "fake")]
async fn a_pause_stops_what_has_namespaces_of_its_own(#[node(disk = "16MiB")] node: Node, cluster: Cluster) -> Result {
    let counted = vmtest_tests::run_dir(cluster.id()).join("node/scratch/content/counted");
    let inner = "while :; do echo >>/scratch/counted; sleep 0.01; done";
    let counter = node.spawn(format!("unshare -p -f sh -c '{inner}'")).await?;
    let size = || fs::metadata(&counted).map(|file| file.len());
    eventually("it counts", Duration::from_secs(10), || async { size().map(drop) }).await?;
    node.pause().await?;
    let before = size()?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(size()?, before);
    node.resume().await?;
    eventually("it goes on", Duration::from_secs(10), || async {
        if size()? > before { Ok(()) } else { Err(Failure::msg("it stands still")) }
    })
    .await?;
    drop(counter);
    Ok(())
}

#[vm_test(backend = "fake")]
async fn a_scripted_machine_that_ends_is_silent(cluster: Cluster, peer: Node) -> Result {
    for fault in [Fault::Refuses(Call::Connect), Fault::Dies(Rung::VmmAlive), Fault::Dies(Rung::SshBanner)] {
        let fake = Fake::new().on("true", Reply::default()).fault(fault);
        cluster.add(NodeSpec::new("odd").fake(fake)).await.expect_err("it does not come up");
    }
    // The addresses behind that of the peer, in order.
    for host in 12..=14 {
        let ping = peer.sh(format!("ping -c 1 -W 1 10.77.0.{host}")).unchecked().await?;
        assert!(!ping.success(), "10.77.0.{host} answers");
    }
    Ok(())
}

#[vm_test(backend = "fake")]
async fn of_a_machine_that_does_not_come_up_nothing_runs(cluster: Cluster) -> Result {
    for scripted in [false, true] {
        let fake = Fake::new().fault(Fault::Refuses(Call::Connect));
        let fake = if scripted { fake.on("true", Reply::default()) } else { fake };
        cluster.add(NodeSpec::new("odd").fake(fake)).await.expect_err("it does not come up");
        let stat = fs::read_to_string(format!("/proc/{}/stat", vmtest_tests::vmm_of(cluster.id(), "odd")));
        assert!(stat.as_ref().map_or(true, |stat| stat.contains(") Z ")), "{stat:?}");
    }
    Ok(())
}

#[vm_test(backend = "fake")]
async fn a_scripted_machine_answers_and_runs_nothing(cluster: Cluster, peer: Node) -> Result {
    let fake = Fake::new()
        .on("pg_isready", Reply::stdout("accepting connections\n"))
        .on("pg_ctl stop", Reply::code(3).with_stderr("not running\n"))
        .on("slow", Reply::stdout("late").after(Duration::from_millis(300)));
    let db = cluster.add(NodeSpec::new("db").fake(fake)).await?;
    assert_eq!(db.sh("pg_isready").await?.stdout(), "accepting connections");
    assert_eq!(db.sh("pg_isready").env("PGPORT", "1\n2").await?.stdout(), "accepting connections");
    let stop = db.sh("pg_ctl stop").unchecked().await?;
    assert_eq!((stop.code(), stop.stderr().as_str()), (Some(3), "not running"));
    let slow = db.sh("slow").await?;
    assert!(slow.elapsed() >= Duration::from_millis(300), "{slow:?}");
    let error = db.sh("touch /tmp/x").await.expect_err("it was not scripted");
    let said =
        "this machine is scripted and has no reply to `touch /tmp/x`: it knows `pg_ctl stop`, `pg_isready`, `slow`";
    assert!(error.to_string().contains(said), "{error}");

    peer.sh("ping -c 1 -W 5 db").await?;
    db.pause().await?;
    assert!(!peer.sh("ping -c 1 -W 1 db").unchecked().await?.success());
    db.resume().await?;
    peer.sh("ping -c 1 -W 5 db").await?;
    db.reboot().await?;
    assert_eq!(db.sh("pg_isready").await?.stdout(), "accepting connections");
    db.shutdown().await?;
    assert_eq!(db.state(), State::Off);
    assert!(!peer.sh("ping -c 1 -W 1 db").unchecked().await?.success());
    db.start().await?;
    db.sh("pg_isready").await?;
    Ok(())
}

const ENDLESS: Duration = Duration::from_secs(1000);

/// A boot with this fault, of a machine with a root and of one that is scripted.
fn boot(fault: Fault, scripted: bool) -> Result<(), Failure> {
    let fake = Fake::new().fault(fault);
    let fake = if scripted { fake.on("true", Reply::default()) } else { fake };
    // Some have to be waited for, and the others shall have the time that they need on a host with much to do.
    let waits = matches!(fault, Fault::Hangs(_) | Fault::Stops(_) | Fault::BootsSlowly(ENDLESS));
    let limit = Duration::from_secs(if waits { 1 } else { 30 });
    let cluster = Cluster::builder().backend("fake").timeout(limit);
    cluster.node(NodeSpec::new("odd").fake(fake)).run(async |_| ())
}

#[rstest]
#[case::never_launched(Fault::Hangs(Call::Launch), "waits for `VMM alive`")]
#[case::never_reached(Fault::Hangs(Call::Connect), "waits for `API answers`")]
#[case::never_told(Fault::Hangs(Call::Status), "waits for `API answers`")]
#[case::no_api(Fault::Stops(Rung::ApiAnswers), "waits for `API answers`")]
#[case::silent(Fault::Stops(Rung::KernelSpeaks), "waits for `kernel speaks`")]
#[case::no_network(Fault::Stops(Rung::NetworkAnswers), "waits for `network answers`")]
#[case::no_server(Fault::Stops(Rung::SshBanner), "waits for `SSH banner`")]
#[case::no_command(Fault::Stops(Rung::SshAuthenticated), "waits for `SSH authenticated`")]
#[case::slow(Fault::BootsSlowly(ENDLESS), "waits for `network answers`")]
#[case::refused_key(Fault::RefusesKey, "the guest refuses the key of this run")]
#[case::refused_launch(Fault::Refuses(Call::Launch), "refuses the call `launch`")]
#[case::refused_connect(Fault::Refuses(Call::Connect), "refuses the call `connect`")]
#[case::refused_status(Fault::Refuses(Call::Status), "refuses the call `status`")]
#[case::dies_at_once(Fault::Dies(Rung::VmmAlive), "the machine ended with")]
#[case::dies_without_api(Fault::Dies(Rung::ApiAnswers), "the machine ended with")]
#[case::dies_silently(Fault::Dies(Rung::KernelSpeaks), "the machine ended with")]
#[case::dies_unreached(Fault::Dies(Rung::NetworkAnswers), "the machine ended with")]
#[case::dies_without_server(Fault::Dies(Rung::SshBanner), "the machine ended with")]
#[case::dies_at_last(Fault::Dies(Rung::SshAuthenticated), "the machine ended with")]
#[case::panics_early(Fault::Panics(Rung::NetworkAnswers), "the guest's kernel panicked")]
#[case::panics_late(Fault::Panics(Rung::SshBanner), "the guest's kernel panicked")]
#[case::panics_last(Fault::Panics(Rung::SshAuthenticated), "the guest's kernel panicked")]
fn a_boot_fails_as_it_was_told(#[case] fault: Fault, #[case] said: &str, #[values(false, true)] scripted: bool) {
    let failure = boot(fault, scripted).expect_err("the machine does not come up").to_string();
    assert!(failure.contains("node `odd`") && failure.contains(said), "{failure}");
}

#[test]
fn a_slow_boot_is_a_boot() {
    boot(Fault::BootsSlowly(Duration::from_millis(200)), false).expect("it comes up");
}

#[vm_test(backend = "fake")]
async fn every_call_can_be_refused(cluster: Cluster) -> Result {
    for (call, scripted) in Call::ALL.into_iter().flat_map(|call| [(call, false), (call, true)]) {
        if matches!(call, Call::Launch | Call::Connect | Call::Status) {
            continue; // Part of a boot, see above.
        }
        let fake = Fake::new().fault(Fault::Refuses(call));
        let fake = if scripted { fake.on("true", Reply::default()) } else { fake };
        let node = cluster
            .add(NodeSpec::new(format!("no-{}-{scripted}", call.to_string().replace(' ', "-"))).fake(fake))
            .await?;
        let refused = match call {
            Call::Pause => node.pause().await,
            Call::Resume => {
                node.pause().await?;
                node.resume().await
            }
            // A part of a shutdown, which goes on with the next.
            _ => {
                node.shutdown().await?;
                continue;
            }
        };
        let error = refused.expect_err("it was told to");
        assert_eq!((error.kind(), error.node()), (Kind::Host, Some(node.name())));
        assert!(error.to_string().contains(&format!("refuses the call `{call}`")), "{error}");
    }
    Ok(())
}

mod victims {
    use super::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by where_namespaces_are_forbidden_a_machine_can_be_scripted"]
    async fn scripted(cluster: Cluster) -> Result {
        let fake = Fake::new().on("uname", Reply::stdout("scripted"));
        let node = cluster.add(NodeSpec::new("node").fake(fake)).await?;
        assert_eq!(node.sh("uname").await?.stdout(), "scripted");
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by where_namespaces_are_forbidden_a_machine_can_be_scripted"]
    async fn isolated(_node: Node) {}

    #[test]
    #[ignore = "run by no_machine_has_the_root_of_the_host"]
    fn refused_to_root() {
        let builder = Cluster::builder().backend("fake").node(NodeSpec::new("node"));
        let failure = builder.run(async |_| ()).expect_err("it is refused").to_string();
        assert!(failure.contains("root in a machine would be root of the host"), "{failure}");
    }

    #[rstest]
    #[case::guest("the guest itself", &[])]
    #[case::vmm("its VMM", &[Fault::IgnoresShutdown])]
    #[case::hung_button("its VMM", &[Fault::IgnoresShutdown, Fault::Hangs(Call::PowerButton)])]
    #[case::sigterm("SIGTERM", &[Fault::IgnoresShutdown, Fault::Refuses(Call::Quit)])]
    #[case::hung_quit("SIGTERM", &[Fault::IgnoresShutdown, Fault::Hangs(Call::Quit)])]
    #[case::sigkill("SIGKILL", &[Fault::IgnoresShutdown, Fault::Refuses(Call::Quit), Fault::IgnoresSigterm])]
    #[ignore = "run by a_shutdown_goes_down_its_own_ladder"]
    #[vmtest::test(backend = "fake")]
    async fn shut_down_by(#[case] by: &str, #[case] faults: &[Fault], #[ignore] cluster: Cluster) -> Result {
        let fake = faults.iter().fold(Fake::new(), |fake, fault| fake.fault(*fault));
        let node = cluster.add(NodeSpec::new("stubborn").fake(fake)).await?;
        node.shutdown().await?;
        let error = node.sh("true").await.expect_err("it is off").to_string();
        assert!(error.contains(&format!("was shut down by the test, by {by},")), "{error}");
        node.start().await?;
        node.sh("true").await?;
        Ok(())
    }
}

#[test]
fn no_machine_has_the_root_of_the_host() {
    let victim = Victim::within(&["setpriv", "--inh-caps=-setuid", "--bounding-set=-setuid"], "refused_to_root");
    victim.run().assert_passed().assert_nothing_left();
}

#[rstest]
fn a_shutdown_goes_down_its_own_ladder(
    #[values(
        "case_1_guest",
        "case_2_vmm",
        "case_3_hung_button",
        "case_4_sigterm",
        "case_5_hung_quit",
        "case_6_sigkill"
    )]
    by: &str,
) {
    // With a twentieth of the patience that a real guest needs, where it is at an end: a guest that goes by itself needs none.
    let patience = if by == "case_1_guest" { "1" } else { "0.05" };
    let victim = Victim::new(&format!("shut_down_by::{by}")).env("VMTEST_TIMEOUT_SCALE", patience);
    victim.run().assert_passed().assert_nothing_left();
}

/// Runs the rest as the root of a user namespace that may have no other.
const NO_OTHER_NAMESPACE: &[&str] =
    &["unshare", "-U", "-r", "sh", "-c", "echo 0 >/proc/sys/user/max_user_namespaces; exec \"$@\"", "sh"];

#[test]
fn where_namespaces_are_forbidden_a_machine_can_be_scripted() {
    Victim::within(NO_OTHER_NAMESPACE, "scripted").run().assert_passed().assert_nothing_left();
    let said = [
        "node `node`: this host allows no namespaces of which a fake machine could be made",
        "give the machine replies",
    ];
    Victim::within(NO_OTHER_NAMESPACE, "isolated").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_machine_hears_signals_that_the_test_ignores() {
    let deaf = "trap '' HUP USR1 USR2 ALRM VTALRM TERM; exec \"$@\"";
    let victim = Victim::within(&["sh", "-c", deaf, "sh"], "shut_down_by::case_1_guest");
    victim.run().assert_passed().assert_nothing_left();
}

#[vm_test(backend = "fake")]
async fn a_crash_ends_what_waits_for_the_machine(cluster: Cluster) -> Result {
    let fake = Fake::new().fault(Fault::Crashes(Duration::from_millis(300)));
    let node = cluster.add(NodeSpec::new("weak").fake(fake)).await?;
    let error = node.sh("sleep 1000").await.expect_err("it crashes");
    assert_eq!(error.kind(), Kind::MachineDied);
    assert!(error.to_string().contains("the machine ended with exit code 1"), "{error}");
    Ok(())
}

#[test]
fn faults_are_for_fakes() {
    let node = NodeSpec::new("odd").fake(Fake::new().fault(Fault::RefusesKey));
    let failure = Cluster::builder().backend("qemu").node(node).run(async |_| ()).expect_err("it is refused");
    assert!(failure.to_string().contains("node `odd`: faults and replies are for the backend `fake`"), "{failure}");
    let node = NodeSpec::new("odd").kernel_args("quiet");
    let failure = Cluster::builder().backend("fake").node(node).run(async |_| ()).expect_err("it is refused");
    assert!(failure.to_string().contains("`kernel_args` are for a kernel of its own"), "{failure}");
}
