//! The tests of the book's tutorial, `docs/tutorial.md`, which shows them piece by piece: `cargo test --example tutorial`.

#![cfg_attr(not(test), expect(dead_code, reason = "what there is to run are tests"))]

use vmtest::prelude::*;

// ANCHOR: first
#[vm_test]
async fn a_machine_answers(server: Node) -> Result {
    let kernel = server.sh("uname -s").await?;
    assert_eq!(kernel.stdout(), "Linux");
    assert_eq!(server.sh("hostname").await?.stdout(), "server");
    Ok(())
}
// ANCHOR_END: first

// ANCHOR: failing
#[vm_test]
async fn what_fails_is_an_error(server: Node) -> Result {
    let error = server.sh("ls /nowhere").await.expect_err("there is no such directory");
    assert_eq!(error.kind(), vmtest::Kind::Command);

    let tried = server.sh("ls /nowhere").unchecked().await?;
    assert_eq!(tried.code(), Some(1));
    assert!(tried.stderr().contains("No such file"));
    Ok(())
}
// ANCHOR_END: failing

// ANCHOR: fixture
#[vm_test]
async fn a_client_reads_the_page(
    #[node(fixture("examples/data/www", at = "/srv/www"))] server: Node,
    client: Node,
) -> Result {
    server.sh("httpd -p 80 -h /srv/www").await?;
    server.wait_for_port(80).await?;
    let page = client.sh("wget -q -O - http://server/").await?;
    assert_eq!(page.stdout(), "it works");
    Ok(())
}
// ANCHOR_END: fixture

// ANCHOR: service
/// Appends what it is told to a file and syncs it: a line `put <text>` a connection, `get` gives all of them.
const SERVICE: &str = r#"#!/bin/sh
read command text
case $command in
    put) echo "$text" >>/scratch/log; sync; echo ok ;;
    get) cat /scratch/log ;;
esac
"#;

/// Starts the service on a machine, and returns when it answers.
async fn serve(node: &Node) -> Result {
    node.write("/root/service", SERVICE).await?;
    node.sh("chmod +x /root/service && touch /scratch/log && nc -ll -p 7000 -e /root/service >/dev/null 2>&1 &")
        .await?;
    node.wait_for_port(7000).await?;
    Ok(())
}
// ANCHOR_END: service

// ANCHOR: three
#[vm_test(disk = "64MiB", timeout = "2m")]
async fn a_copy_survives_a_power_cut([a, b]: [Node; 2], client: Node, cluster: Cluster) -> Result {
    for node in [&a, &b] {
        serve(node).await?;
    }

    step("the client writes to both");
    for node in [&a, &b] {
        let put = client.sh(format!("echo put first | nc {} 7000", node.name())).await?;
        assert_eq!(put.stdout(), "ok");
    }

    step("a loses its power");
    a.kill().await?;
    let get = client.sh("echo get | nc -w 5 a 7000").unchecked().await?;
    assert_eq!(get.stdout(), "", "nobody answers for it");
    let get = client.sh("echo get | nc b 7000").await?;
    assert_eq!(get.stdout(), "first");

    step("a comes back with what it had synced");
    a.start().await?;
    serve(&a).await?;
    let get =
        eventually("a answers the client", Duration::from_secs(10), async || client.sh("echo get | nc a 7000").await)
            .await?;
    assert_eq!(get.stdout(), "first");

    assert_eq!(cluster.nodes().len(), 3);
    Ok(())
}
// ANCHOR_END: three

fn main() {
    println!("its tests are what there is to run: cargo test --example tutorial");
}
