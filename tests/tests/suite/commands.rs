//! Commands and processes in guests.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, time::Duration};

use vmtest::{Kind, prelude::*, spec::Capability};

/// How many processes of the guest have this in their command line, other than whoever looks.
async fn count(node: &Node, text: &str) -> Result<usize> {
    let (first, rest) = text.split_at(1);
    let found = node.sh(format!("ps -o args | grep -c '[{first}]{rest}'")).unchecked().await?;
    Ok(found.stdout().parse()?)
}

#[vm_test(backend = "qemu, fake")]
async fn a_command_gets_its_input_environment_and_user(node: Node) -> Result {
    assert_eq!(node.sh("wc -c").await?.stdout(), "0", "without input there is none to wait for");
    assert_eq!(node.sh("wc -l").stdin("one\ntwo\n").await?.stdout(), "2");
    let large = vec![b'x'; 3 << 20];
    assert_eq!(*node.sh("cat").stdin(large.clone()).await?.stdout_raw(), *large);

    let shown = node.sh("printf %s \"$WORDS\"").env("WORDS", "it's \"two\" $words\nin lines").await?;
    assert_eq!(shown.stdout(), "it's \"two\" $words\nin lines");

    node.sh("echo worker:x:1000:1000::/:/bin/sh >>/etc/passwd").await?;
    assert_eq!(node.sh("id -un; echo $A").user("worker").env("A", "b").await?.stdout(), "worker\nb");
    assert!(!node.sh("cat /etc/shadow").user("worker").unchecked().await?.success());
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_command_that_takes_too_long_is_killed_with_all_it_started(node: Node) -> Result {
    let nested = "echo begun; (setsid sleep 4711 & setsid sh -c 'trap \"\" TERM HUP; sleep 4711') & sleep 4711";
    let error = node.sh(nested).timeout(Duration::from_millis(500)).await.expect_err("it takes too long");
    assert_eq!((error.kind(), error.node()), (Kind::Timeout, Some("node")));
    assert!(error.to_string().contains("was killed") && error.to_string().contains("stdout: begun"), "{error}");
    assert_eq!(count(&node, "sleep 4711").await?, 0);

    let quick = node.sh("echo done").timeout(Duration::from_secs(60)).await?;
    assert_eq!(quick.stdout(), "done");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_dropped_command_is_killed(node: Node) -> Result {
    let given_up = tokio::time::timeout(Duration::from_secs(1), node.sh("sleep 4712 & sleep 4712").into_future());
    assert!(given_up.await.is_err());
    wait_for_none(&node, "sleep 4712").await?;

    let mut process = node.spawn("echo up; sleep 4713").await?;
    assert_eq!(process.stdout.next().await?.as_deref(), Some("up"));
    assert!(count(&node, "sleep 4713").await? > 0);
    drop(process);
    wait_for_none(&node, "sleep 4713").await
}

#[vm_test(backend = "qemu, fake")]
async fn a_command_that_is_given_up_as_it_begins_is_killed(node: Node, cluster: Cluster) -> Result {
    let rounds = if cluster.plan().capabilities.has(Capability::OwnKernel) { 5 } else { 200 };
    for _ in 0..rounds {
        // The shell is about to become another program, whose environment is empty for a moment.
        let mut process = node.spawn("echo up; sleep 4714").await?;
        assert_eq!(process.stdout.next().await?.as_deref(), Some("up"));
        drop(process);
        wait_for_none(&node, "sleep 4714").await?;
    }
    Ok(())
}

/// How much memory this process has now.
fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says so");
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// The test's own timeout ends this.
async fn wait_for_none(node: &Node, text: &str) -> Result {
    while count(node, text).await? > 0 {}
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn fifty_commands_at_once_each_print_their_own_megabyte(node: Node) -> Result {
    let work = (0..50).map(|n: usize| {
        let node = node.clone();
        tokio::spawn(async move {
            // Lines of 64 bytes, all with the number of the command.
            let output = node.sh(format!("yes {n:063} | head -c 1048576")).await?;
            let line = format!("{n:063}\n");
            let whole = output.stdout_raw().chunks(64).all(|chunk| chunk == line.as_bytes());
            Result::<_, Error>::Ok((output.stdout_raw().len(), whole))
        })
    });
    for (n, task) in work.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(task.await??, (1 << 20, true), "command {n}");
    }
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_process_is_talked_to_while_it_lives(node: Node) -> Result {
    let mut process = node.spawn("while read -r line; do echo \"<$line>\"; echo \"[$line]\" >&2; done; exit 5").await?;
    for text in ["one", "two words", "täglich"] {
        process.write(format!("{text}\n")).await?;
        assert_eq!(process.stdout.next().await?, Some(format!("<{text}>")));
        assert_eq!(process.stderr.next().await?, Some(format!("[{text}]")));
    }
    process.close_stdin().await?;
    let exit = process.wait().await?;
    assert_eq!((exit.code(), exit.signal(), exit.success()), (Some(5), None, false));
    assert_eq!(process.stdout.next().await?, None);
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_process_gets_signals_and_is_killed(node: Node) -> Result {
    let mut process = node.spawn("trap 'echo caught; exit 3' TERM; echo up; while :; do sleep 1; done").await?;
    assert_eq!(process.stdout.next().await?.as_deref(), Some("up"));
    process.signal("TERM").await?;
    assert_eq!(process.stdout.next().await?.as_deref(), Some("caught"));
    assert_eq!(process.wait().await?.code(), Some(3));

    let mut stubborn = node.spawn("trap '' TERM HUP INT; echo up; sleep 4714 & sleep 4714").await?;
    assert_eq!(stubborn.stdout.next().await?.as_deref(), Some("up"));
    let error = stubborn.signal("NOSUCH").await.expect_err("there is none");
    assert!(error.to_string().contains("cannot send the signal `NOSUCH`"), "{error}");
    stubborn.kill().await?;
    assert_eq!(count(&node, "sleep 4714").await?, 0);
    assert_eq!(stubborn.wait().await?.signal(), Some("KILL"));
    stubborn.kill().await?;
    Ok(())
}

/// `VMTEST_INTERNAL_OUTPUT_MIB` says how much; the long tier prints a gibibyte.
#[vm_test(backend = "qemu, fake", timeout = "10m")]
async fn output_that_nobody_reads_harms_nobody(node: Node) -> Result {
    let mib = std::env::var("VMTEST_INTERNAL_OUTPUT_MIB").map_or(Ok(64), |mib| mib.parse::<usize>())?;
    let print = format!("dd if=/dev/zero bs=1048576 count={mib} 2>/dev/null");
    let before = resident_kib()?;
    let mut chatter = node.spawn(format!("{print}; echo end >&2")).await?;
    for n in 0..100 {
        assert_eq!(node.sh(format!("echo {n}")).await?.stdout(), n.to_string());
    }
    assert_eq!(chatter.stderr.next().await?.as_deref(), Some("end"));
    let mut read = 0;
    while let Some(chunk) = chatter.stdout.chunk().await? {
        read += chunk.len();
    }
    assert_eq!(read, mib << 20);
    assert!(chatter.wait().await?.success());

    let output = node.sh(print).await?;
    // A mebibyte for each stream, and what the connections and other tests of this process take meanwhile.
    let grown = resident_kib()?.saturating_sub(before);
    assert!(grown < 48 << 10, "{grown} KiB for {mib} MiB of output");
    assert_eq!(output.stdout_raw().len(), mib << 20);
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_guest_whose_server_dies_says_so(node: Node) -> Result {
    // Its init starts it again, so the program must go as well.
    node.sh("mv /usr/sbin/dropbear /gone; (sleep 1; killall dropbear) >/dev/null 2>&1 &").await?;
    let cut = node.sh("sleep 1000").await.expect_err("the connection breaks");
    assert_eq!((cut.kind(), cut.node()), (Kind::Connection, Some("node")), "{cut}");
    assert!(cut.to_string().contains("the connection broke"), "{cut}");
    let gone = node.sh("true").await.expect_err("nobody answers");
    assert!(gone.to_string().contains("node `node`: the guest's SSH server at 10.77.0.11:22 is gone"), "{gone}");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn wrong_commands_are_said(node: Node) -> Result {
    let error = node.sh("nosuchcommand --flag").await.expect_err("there is none");
    assert!(error.to_string().contains("exit code 127: there is no such command in this image"), "{error}");
    assert!(error.to_string().contains("nosuchcommand: not found"), "{error}");

    let error = node.sh("echo \0").await.expect_err("no shell takes it");
    assert_eq!(error.kind(), Kind::Spec);
    assert!(error.to_string().contains("node `node`: `echo \\0` holds a NUL byte"), "{error}");

    let bytes = node.sh(OsStr::from_bytes(b"printf '\xff\xfe'")).await?;
    assert_eq!(*bytes.stdout_raw(), *b"\xff\xfe");

    let error = node.sh("true").user("nobodyhere").await.expect_err("there is no such user");
    assert!(error.to_string().contains("nobodyhere"), "{error}");
    Ok(())
}
