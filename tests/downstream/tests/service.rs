//! The service on real machines.

// What the attribute expands to is none of the user's own.
#![forbid(unsafe_code)]

use rstest::rstest;
use tracing_test::traced_test;
use vmtest::prelude::*;

#[vm_test]
async fn a_client_reads_the_page(
    #[node(fixture("tests/data/www", at = "/srv/www"))] server: Node,
    client: Node,
) -> Result {
    server.sh("httpd -p 80 -h /srv/www").await?;
    let page = client.sh("wget -q -O - http://server/").await?;
    assert_eq!(page.stdout(), downstream::PAGE.trim());
    Ok(())
}

/// Cases of another crate, each with a cluster of its own.
#[rstest]
#[case::of_the_index("/", true)]
#[case::of_nothing("/nothing", false)]
#[vmtest::test(backend = "fake, qemu")]
async fn a_page_is_there_or_is_not(#[case] path: &str, #[case] there: bool, #[ignore] server: Node) -> Result {
    server.sh("mkdir /srv/www && echo it works >/srv/www/index.html && httpd -p 8080 -h /srv/www").await?;
    server.wait_for_port(8080).await?;
    let page = server.sh(format!("wget -q -O - http://127.0.0.1:8080{path}")).unchecked().await?;
    assert_eq!(page.success(), there);
    Ok(())
}

/// Logs of the body that yet another one collects.
#[vm_test(backend = "fake, qemu")]
#[traced_test]
async fn what_a_body_traces_is_found(server: Node) -> Result {
    tracing::info!("{} answers", server.sh("hostname").await?.stdout());
    assert!(logs_contain("server answers"));
    Ok(())
}
