//! Disks that are kept from one run to the next.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use nix::sys::signal::Signal;
use tempfile::TempDir;
use vmtest::{Kind, prelude::*};
use vmtest_tests::{Victim, image_cache};

/// Tests of a project with volumes.
mod victims {
    use std::future::pending;

    use super::*;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run for its image"]
    async fn plain(_node: Node) {}

    /// Says what it finds, and puts something there. It does not say `sync`.
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn keeps(#[node(volume("data", at = "/srv/data", size = "32MiB"))] node: Node) -> Result {
        let found = node.sh("cat /srv/data/file 2>/dev/null || echo nothing").await?;
        println!("the volume has {}", found.stdout());
        node.sh("echo precious >/srv/data/file").await?;
        Ok(())
    }

    /// Has the volume until it is ended.
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by many"]
    async fn holds(#[node(volume("data", at = "/srv/data", size = "32MiB"))] node: Node) -> Result {
        node.sh("echo synced >/srv/data/file && sync").await?;
        // So that it ends in the middle of something.
        let write = "while sleep 0.01; do echo more >>/srv/data/log; mv /srv/data/log /srv/data/log2; done";
        let _writes = node.spawn(write).await?;
        println!("the body begins");
        pending::<()>().await;
        Ok(())
    }

    /// Two machines that read what another test has written, until they are ended.
    #[vm_test(backend = "qemu, fake", volume("data", at = "/srv/data", access = "read-only"))]
    #[ignore = "run by many"]
    async fn reads([a, b]: [Node; 2]) -> Result {
        for node in [a, b] {
            let write = node.sh("echo x >/srv/data/other").unchecked().await?;
            assert!(!write.success(), "it can be written: {}", write.stderr());
            println!("{} reads {}", node.name(), node.sh("cat /srv/data/file").await?.stdout());
        }
        println!("the body begins");
        if std::env::var_os(STAY).is_some() {
            pending::<()>().await;
        }
        Ok(())
    }

    #[vm_test(backend = "qemu")]
    #[ignore = "run by one_that_is_too_small_grows"]
    async fn needs_more(#[node(volume("data", at = "/srv/data", size = "96MiB"))] node: Node) -> Result {
        let kib = node.sh("set -- $(df -k /srv/data | tail -n 1); echo $2").await?.stdout();
        println!("the guest sees {kib} KiB with {}", node.sh("cat /srv/data/file").await?.stdout());
        Ok(())
    }

    #[vm_test(backend = "qemu")]
    #[ignore = "run by one_that_is_too_small_grows"]
    async fn needs_less(#[node(volume("data", at = "/srv/data", size = "32MiB"))] _node: Node) {}

    /// Its first machine leaves, and another one takes the volume over.
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_volume_passes_to_a_machine_that_joins"]
    async fn fails_over(cluster: Cluster) -> Result {
        let with = |name: &str| NodeSpec::new(name).volume(Volume::new("data").size(32 << 20), "/srv/data");
        let old = cluster.add(with("old")).await?;
        old.sh("echo from the old one >/srv/data/file").await?;
        let refused = cluster.add(with("new")).await.expect_err("one machine writes it");
        assert!(refused.kind() == Kind::Spec && refused.to_string().contains("one machine's alone"), "{refused}");
        old.shutdown().await?;
        cluster.remove(&old).await?;
        let new = cluster.add(with("new")).await?;
        assert_eq!(new.sh("cat /srv/data/file").await?.stdout(), "from the old one");
        Ok(())
    }
}

/// Has readers stay.
const STAY: &str = "VMTEST_INTERNAL_STAY";

/// A cache with the image that they boot, and nothing that is kept.
fn cache() -> TempDir {
    static BUILT: OnceLock<()> = OnceLock::new();
    image_cache(|_| *BUILT.get_or_init(|| drop(Victim::new("plain").run().assert_passed())))
}

fn victim(name: &str, cache: &TempDir) -> Victim {
    Victim::new(name).env("VMTEST_CACHE", cache.path())
}

/// The files of the volume.
fn files(cache: &Path) -> Vec<PathBuf> {
    let list = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let all =
        list(cache.join("volumes")).flat_map(list).filter(|path| path.file_stem().is_some_and(|name| name == "data"));
    let mut names: Vec<_> = all.collect();
    names.sort();
    names
}

#[test]
fn what_a_test_has_written_is_there_for_the_next() {
    let cache = cache();
    let run = || victim("keeps", &cache).run().assert_passed();
    let first = run();
    assert!(first.text().contains("the volume has nothing"), "{}", first.text());
    first.assert_nothing_left();
    let second = run();
    assert!(second.text().contains("the volume has precious"), "{}", second.text());
    second.assert_nothing_left();
    for path in files(cache.path()) {
        let mode = fs::metadata(&path).expect("it is there").mode();
        assert!(path.is_dir() || mode & 0o077 == 0, "{}: {mode:o}", path.display());
    }
}

#[test]
fn a_killed_test_gives_its_volume_back_whole() {
    let cache = cache();
    let mut running = victim("holds", &cache).start();
    running.wait_for("the body begins");
    let mut waiting = victim("keeps", &cache).start();
    let said = format!("volumes::victims::keeps waits for `volumes::victims::holds`, process {}", running.pid());
    waiting.wait_to_complain(&said);
    running.signal(Signal::SIGKILL);
    let waited = waiting.finish().assert_passed();
    assert!(waited.text().contains("the volume has synced"), "{}", waited.text());
    let killed = running.finish();
    assert_eq!(killed.signal(), Some(Signal::SIGKILL));
    // What the run itself has left is removed by the next one.
    victim("keeps", &cache).beside(killed.runs()).run().assert_passed().assert_nothing_left();
    killed.assert_nothing_left();
}

#[test]
fn two_tests_of_one_volume_run_one_after_the_other() {
    let cache = cache();
    let mut first = victim("holds", &cache).start();
    first.wait_for("the body begins");
    let mut second = victim("keeps", &cache).start();
    second
        .wait_to_complain("vmtest: volume data: volumes::victims::keeps waits for `volumes::victims::holds`, process ");
    first.signal(Signal::SIGTERM);
    first.finish().assert_nothing_left();
    let second = second.finish().assert_passed();
    assert!(second.text().contains("the volume has synced"), "{}", second.text());
    second.assert_nothing_left();
}

#[test]
fn readers_share_and_a_writer_waits_for_them() {
    let cache = cache();
    let nothing = victim("reads", &cache).run().assert_failed_with(&["is only read, and there is none yet"]);
    nothing.assert_nothing_left();
    drop(victim("keeps", &cache).run().assert_passed());
    let mut first = victim("reads", &cache).env(STAY, "1").start();
    first.wait_for("the body begins");
    // Beside the first, which holds it.
    let second = victim("reads", &cache).run().assert_passed();
    for said in ["a reads precious", "b reads precious"] {
        assert!(second.text().contains(said), "{}", second.text());
    }
    second.assert_nothing_left();
    let mut writer = victim("keeps", &cache).start();
    writer.wait_to_complain("volumes::victims::keeps waits for `volumes::victims::reads`, process ");
    first.signal(Signal::SIGTERM);
    first.finish().assert_nothing_left();
    writer.finish().assert_passed().assert_nothing_left();
}

#[test]
fn one_that_is_too_small_grows() {
    let cache = cache();
    let qemu = |name| victim(name, &cache).env("VMTEST_BACKEND", "qemu");
    drop(qemu("keeps").run().assert_passed());
    let grown = qemu("needs_more").run().assert_passed();
    let line = grown.text().lines().find(|line| line.starts_with("the guest sees ")).expect("it says what it sees");
    let kib: u64 = line.split_whitespace().nth(3).and_then(|word| word.parse().ok()).expect("a number");
    assert!((80 << 10..96 << 10).contains(&kib) && line.ends_with(" KiB with precious"), "{line}");
    grown.assert_nothing_left();
    let said = ["the volume `data` shall have 32.0 MiB and has 96.0 MiB", "`cargo vmtest volume rm`"];
    qemu("needs_less").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn a_volume_passes_to_a_machine_that_joins() {
    let cache = cache();
    victim("fails_over", &cache).run().assert_passed().assert_nothing_left();
    let after = victim("keeps", &cache).run().assert_passed();
    assert!(after.text().contains("the volume has from the old one"), "{}", after.text());
}
