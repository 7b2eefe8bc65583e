//! The service on real machines.

// What the attribute expands to is none of the user's own.
#![forbid(unsafe_code)]

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
