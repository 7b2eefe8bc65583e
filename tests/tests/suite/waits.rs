//! Waiting for machines: what comes, what never comes, and what cannot come any more.

use vmtest::{Kind, prelude::*};

/// Stands in for systemd: `show` prints what is in `/run/unit`, and there is a log.
const SYSTEMCTL: &str = "#!/bin/sh\ncat /run/unit\n";
const JOURNALCTL: &str = "#!/bin/sh\necho 'the last words of the unit'\n";

#[vm_test(backend = "qemu, fake")]
async fn what_comes_ends_the_wait(node: Node) -> Result {
    let mut later =
        node.spawn("sleep 1; echo 'service is READY now' >/dev/console; touch /there; httpd -f -p 80").await?;
    node.wait_for_console("service is .*READY").await?;
    node.wait_until("test -e /there").await?;
    node.wait_for_port(80).await?;
    node.wait_for(Condition::port(80).and(Condition::command("test -e /there"))).await?;
    node.wait_for(Condition::port(81).or(Condition::console("READY"))).await?;
    later.kill().await?;

    let mut lines = node.console_lines()?;
    let first = lines.next().await?;
    assert!(first.contains("Linux "), "{first}");
    let mut seen = false;
    while !seen {
        seen = lines.next().await?.contains("READY");
    }
    node.sh("echo 'live line' >/dev/console").await?;
    // The SSH server has its own words in between.
    while lines.next().await? != "live line" {}
    assert!(node.console().iter().any(|line| line == "live line"));
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn units_become_active_or_fail(node: Node) -> Result {
    let error = node.wait_for_unit("web").await.expect_err("there is no systemd");
    assert!(error.to_string().contains("there is no unit `web`: this image has no systemd"), "{error}");

    for (name, script) in [("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)] {
        node.write(format!("/usr/bin/{name}"), script).await?;
        node.sh(format!("chmod 755 /usr/bin/{name}; echo activating >/run/unit")).await?;
    }
    let activated = node.spawn("sleep 1; echo active >/run/unit").await?;
    node.wait_for_unit("web").await?;
    drop(activated);

    node.write("/run/unit", "failed\n").await?;
    let error = node.wait_for_unit("web").within(Duration::from_secs(600)).await.expect_err("it has failed");
    assert_eq!(error.kind(), Kind::Command);
    assert!(error.to_string().contains("the unit `web` has failed; its log ends with:\n  the last words"), "{error}");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn what_never_comes_says_what_was_seen(node: Node) -> Result {
    let short = Duration::from_millis(200);
    for (error, said) in [
        (
            node.wait_for_port(81).within(short).await.err(),
            "until somebody listens on port 81; last: Connection refused",
        ),
        (
            node.wait_until("echo no; exit 3").within(short).await.err(),
            "`echo no; exit 3` succeeds; last: exit code 3 no",
        ),
        (node.wait_for_console("never printed").within(short).await.err(), "the console shows `never printed`; last: "),
    ] {
        let error = error.expect("it never comes");
        assert_eq!((error.kind(), error.node()), (Kind::Timeout, Some("node")));
        assert!(error.to_string().contains(said), "{error}");
    }
    let error = node.wait_for_console("(").await.expect_err("it is no pattern");
    assert_eq!(error.kind(), Kind::Spec);
    assert!(error.to_string().contains("this is no regular expression"), "{error}");

    let failure = eventually("it works", short, async || node.sh("exit 9").await).await.expect_err("it never does");
    assert!(failure.to_string().contains("until it works: "), "{failure}");
    assert!(failure.to_string().contains("exit code 9"), "{failure}");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_machine_that_dies_ends_all_waits(node: Node) -> Result {
    let long = Duration::from_secs(600);
    let (port, command, console, retried, off) = tokio::join!(
        node.wait_for_port(81).within(long).into_future(),
        node.wait_until("false").within(long).into_future(),
        node.wait_for_console("never printed").within(long).into_future(),
        eventually("it works", long, async || node.sh("false").await),
        node.sh("poweroff -f; sleep 1000").into_future(),
    );
    for error in [port.err(), command.err(), console.err(), off.err()] {
        let error = error.expect("it is dead");
        assert_eq!(error.kind(), Kind::MachineDied, "{error}");
    }
    let failure = retried.map(drop).expect_err("it is dead");
    assert_eq!(failure.cause::<Error>().map(Error::kind), Some(Kind::MachineDied), "{failure}");
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn binary_and_endless_console_output_harms_nobody(node: Node) -> Result {
    let mut noise = node.spawn("cat /dev/urandom >/dev/console").await?;
    for n in 0..20 {
        assert_eq!(node.sh(format!("echo {n}")).await?.stdout(), n.to_string());
    }
    noise.kill().await?;
    node.sh("printf '\\nafter the noise\\n' >/dev/console").await?;
    node.wait_for_console("after the noise").await?;
    Ok(())
}
