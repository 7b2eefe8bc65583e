//! What machines are given while they run, and how fast they may be.

use std::{fs, time::Instant};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use vmtest::{Kind, Liveness, plan::Capabilities, prelude::*, spec::Capability};

use vmtest_tests::{run_dir, vmm_of};

use crate::Case;

pub(crate) const CASES: &[Case] = &[
    Case { name: "a_machine_is_given_memory_and_gives_it_back", needs: resize, run: memory },
    Case { name: "a_machine_is_given_cpus_and_lets_them_go", needs: resize, run: cpus },
    Case { name: "a_disk_is_plugged_in_and_pulled_out", needs: hotplug, run: plugs },
    Case { name: "a_volume_outlives_its_run", needs: |_| true, run: volume },
    Case { name: "a_vmm_that_hangs_is_neither_alive_nor_dead", needs: own_kernel, run: hangs },
    Case { name: "a_disk_is_as_slow_as_asked", needs: disk_rate, run: slow_disks },
    Case { name: "a_panic_is_told_where_the_console_is_silent", needs: panic_device, run: panics_silently },
    Case { name: "a_screen_can_be_looked_at", needs: screenshot, run: screen },
];

fn resize(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::Resize)
}

fn own_kernel(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::OwnKernel)
}

fn hotplug(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::Hotplug)
}

fn panic_device(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::PanicDevice)
}

fn screenshot(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::Screenshot)
}

fn disk_rate(capabilities: &Capabilities) -> bool {
    capabilities.has(Capability::DiskRate)
}

/// Runs this with one machine.
fn run<F: Future<Output = Result>>(
    backend: &str,
    node: NodeSpec,
    body: impl FnOnce(Node) -> F + Send + 'static,
) -> Result {
    let builder = Cluster::builder().backend(backend).timeout(Duration::from_secs(60)).node(node);
    builder.run(async move |cluster: Cluster| body(cluster.node("node")?).await)
}

/// Written by one cluster, without a `sync`, and read by two machines of the next.
fn volume(backend: &str) -> Result {
    let name = format!("conformance-{backend}-{}", std::process::id());
    let written = Volume::new(&*name).size(32 << 20);
    let written = run(backend, NodeSpec::new("node").volume(written, "/srv/data"), |node| async move {
        node.sh("echo precious >/srv/data/file").await?;
        Ok(())
    });
    let reads = |node: &str| NodeSpec::new(node).volume(Volume::new(&*name).read_only(), "/srv/data");
    let builder = Cluster::builder().backend(backend).node(reads("a")).node(reads("b"));
    let read = written.and_then(|()| {
        builder.run(async |cluster: Cluster| {
            for node in cluster.nodes() {
                assert_eq!(node.sh("cat /srv/data/file").await?.stdout(), "precious");
                assert!(!node.sh("echo x >/srv/data/file").unchecked().await?.success(), "it can be written");
            }
            Ok::<_, Failure>(())
        })
    });
    let kept = vmtest::harness::volumes()?.into_iter().find(|volume| volume.name == name);
    let kept = kept.ok_or_else(|| Failure::msg("it is not kept"))?;
    // A VMM that is being started for another case has a copy of every descriptor until it begins.
    while !kept.remove()? {
        std::thread::yield_now();
    }
    read
}

fn memory(backend: &str) -> Result {
    const MIB: u64 = 1 << 20;
    run(backend, NodeSpec::new("node").memory(192 * MIB).max_memory(512 * MIB), async |node| {
        let total = async || -> Result<u64> {
            let kib = node.sh("sed -n 's/^MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo").await?.stdout();
            Ok(kib.parse::<u64>()? / 1024)
        };
        let first = total().await?;
        assert!((100..192).contains(&first), "{first} MiB");
        for size in [512, 128, 192] {
            node.set_memory(size * MIB).await?;
            assert_eq!(total().await?, first + size - 192, "of {size} MiB");
        }
        let refused = node.set_memory(513 * MIB).await.expect_err("it is more than declared");
        assert_eq!(refused.kind(), Kind::Spec, "{refused}");
        assert_eq!(node.set_cpus(1).await.expect_err("nothing is declared").kind(), Kind::Spec);
        node.set_memory(512 * MIB).await?;
        node.reboot().await?;
        assert_eq!(total().await?, first);
        Ok(())
    })
}

fn cpus(backend: &str) -> Result {
    run(backend, NodeSpec::new("node").cpus(1).max_cpus(3), async |node| {
        let count = async || node.sh("nproc; grep -c ^processor /proc/cpuinfo").await.map(|output| output.stdout());
        assert_eq!(count().await?, "1\n1");
        for cpus in [3, 2, 3, 1] {
            node.set_cpus(cpus).await?;
            assert_eq!(count().await?, format!("{cpus}\n{cpus}"));
        }
        for cpus in [0, 4] {
            assert_eq!(node.set_cpus(cpus).await.expect_err("it is not declared").kind(), Kind::Spec);
        }
        node.set_cpus(2).await?;
        node.reboot().await?;
        assert_eq!(count().await?, "1\n1");
        assert_eq!(node.set_memory(1 << 28).await.expect_err("nothing is declared").kind(), Kind::Spec);
        Ok(())
    })
}

fn plugs(backend: &str) -> Result {
    let builder = Cluster::builder().backend(backend).timeout(Duration::from_secs(90)).requires(Capability::Hotplug);
    builder.node(NodeSpec::new("node").disk(16 << 20).disk_rate(8 << 20)).run(async |cluster: Cluster| {
        let node = cluster.node("node")?;
        let scratch = fs::canonicalize(run_dir(cluster.id()).join("node/scratch"))?;
        let blank = || NewDisk::blank(32 << 20);
        let disk = node.attach(blank(), "/mnt/data").await?;
        node.sh("echo kept >/mnt/data/file; sync").await?;
        let again = node.attach(blank(), "/mnt/data/inside").await.expect_err("there is a disk");
        assert_eq!(again.kind(), Kind::Spec, "{again}");
        let fixture = node.attach(Fixture::from_files([("a/b", "made up")]).label("made-up"), "/srv/up").await?;
        assert_eq!(node.sh("cat /srv/up/a/b").await?.stdout(), "made up");
        assert!(!node.sh("touch /srv/up/c").unchecked().await?.success(), "it can be written");
        // One that is in use stays, and can go later.
        let mut user = node.spawn("cd /mnt/data && sleep 1000").await?;
        node.wait_until("pidof sleep").await?;
        let busy = disk.clone().detach().await.expect_err("it is in use");
        assert_eq!(busy.kind(), Kind::Connection, "{busy}");
        assert_eq!(node.sh("cat /mnt/data/file").await?.stdout(), "kept");
        user.kill().await?;
        let twice = disk.clone();
        disk.detach().await?;
        assert_eq!(twice.detach().await.expect_err("it is gone").kind(), Kind::Spec);
        assert!(!node.sh("findfs LABEL=vmtest-hot0").unchecked().await?.success(), "the guest still has it");
        fixture.detach().await?;
        assert_eq!(fs::read_dir(&scratch)?.count(), 1, "only its own disk is left");
        // Its place is free, and what was on the other is not on this one. It goes with the power.
        let gone = node.attach(blank(), "/mnt/data").await?;
        assert!(!node.sh("test -e /mnt/data/file").unchecked().await?.success());
        node.reboot().await?;
        assert_eq!(gone.detach().await.expect_err("it went").kind(), Kind::Spec);
        let last = node.attach(blank(), "/mnt/data").await?;
        last.detach().await?;
        Ok::<_, Failure>(())
    })
}

fn hangs(backend: &str) -> Result {
    let builder = Cluster::builder().backend(backend).timeout(Duration::from_secs(60));
    builder.node(NodeSpec::new("node")).run(async |cluster: Cluster| {
        let node = cluster.node("node")?;
        let vmm = Pid::from_raw(vmm_of(cluster.id(), "node"));
        assert_eq!(node.liveness().await, Liveness::Alive);
        kill(vmm, Signal::SIGSTOP)?;
        assert_eq!(node.liveness().await, Liveness::Unknown);
        let silent = node.pause().await.expect_err("nobody answers");
        assert_eq!(silent.kind(), Kind::Timeout, "{silent}");
        assert!(silent.to_string().contains("whether the machine is alive is unknown"), "{silent}");
        kill(vmm, Signal::SIGCONT)?;
        eventually("it answers again", Duration::from_secs(5), async || match node.liveness().await {
            Liveness::Alive => Ok(()),
            other => Err(Failure::msg(format!("{other:?}"))),
        })
        .await?;
        kill(vmm, Signal::SIGSTOP)?;
        node.kill().await?;
        assert_eq!(node.liveness().await, Liveness::Dead);
        Ok::<_, Failure>(())
    })
}

/// Slowed down to 2 MiB a second, 8 MiB take four seconds less what passes at once, which is 1.25 MiB at most; however slow a host
/// is, a disk is not faster than that.
fn slow_disks(backend: &str) -> Result {
    let node = NodeSpec::new("node").disk(32 << 20);
    run(backend, node.clone().disk_rate(2 << 20), async |node| {
        for command in [
            "dd if=/dev/zero of=/scratch/file bs=1M count=8 conv=fsync",
            "echo 3 >/proc/sys/vm/drop_caches; cat /scratch/file >/dev/null",
        ] {
            let began = Instant::now();
            node.sh(command).await?;
            let took = began.elapsed();
            assert!(took > Duration::from_secs(3), "{command}: {took:?}");
        }
        Ok(())
    })?;
    run(backend, node.disk_iops(20), async |node| {
        let began = Instant::now();
        node.sh("i=0; while [ $i -lt 15 ]; do echo $i >/scratch/$i; sync; i=$((i + 1)); done").await?;
        // Each sync is a commit of the journal and the flushes around it: more than three writes.
        let took = began.elapsed();
        assert!(took > Duration::from_secs(2), "{took:?}");
        Ok(())
    })
}

fn panics_silently(backend: &str) -> Result {
    let failure = run(backend, NodeSpec::new("node"), async |node| {
        // At this level a kernel prints nothing, not even as it dies.
        node.sh("echo 0 >/proc/sys/kernel/printk; echo c >/proc/sysrq-trigger; sleep 1000").await?;
        Ok(())
    });
    let said = failure.expect_err("its kernel has panicked").to_string();
    assert!(said.contains("the guest's kernel panicked") && said.contains("its pvpanic device told so"), "{said}");
    Ok(())
}

fn screen(backend: &str) -> Result {
    let builder = Cluster::builder().backend(backend).timeout(Duration::from_secs(60)).requires(Capability::Screenshot);
    builder.node(NodeSpec::new("node")).run(async |cluster: Cluster| {
        let node = cluster.node("node")?;
        let blank = node.screenshot().await?;
        assert!(blank.starts_with(b"\x89PNG\r\n"), "{blank:.16?}");
        node.sh("dmesg >/dev/tty1").await?;
        // A picture of text is larger than one of nothing: a cursor that blinks makes no such difference.
        eventually("the screen shows the text", Duration::from_secs(10), async || {
            let text = node.screenshot().await?;
            let (blank, text) = (blank.len(), text.len());
            if text > blank + 1000 { Ok(()) } else { Err(Failure::msg(format!("{blank} bytes, then {text}"))) }
        })
        .await?;
        node.kill().await?;
        assert_eq!(node.screenshot().await.expect_err("it is off").kind(), Kind::MachineDied);
        Ok::<_, Failure>(())
    })
}
