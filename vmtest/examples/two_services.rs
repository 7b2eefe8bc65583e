//! Two services on two machines, from a program of one's own: a web server, and a client that is on both networks.
//! `cargo run --example two_services`.

use vmtest::{prelude::*, spec::NetworkSpec};

fn main() -> Result {
    vmtest::enter_rootless()?;
    let page = Fixture::from_files([("index.html", "hello from the back")]);
    let client = NodeSpec::new("client").network(NetworkSpec::new("front"));
    let proxy = NodeSpec::new("proxy").network(NetworkSpec::new("front")).network(NetworkSpec::new("back"));
    let web = NodeSpec::new("web").network(NetworkSpec::new("back")).fixture(page, "/srv/www");
    Cluster::builder().name("two services").node(client).node(proxy).node(web).run(async |cluster| {
        let [client, proxy, web] = [cluster.node("client")?, cluster.node("proxy")?, cluster.node("web")?];
        web.sh("httpd -p 80 -h /srv/www").await?;
        proxy.sh("nc -ll -p 80 -e nc web 80 >/dev/null 2>&1 &").await?;
        proxy.wait_for_port(80).await?;

        // The client shares no network with the server, so it gets there through the proxy alone.
        let directly = client.sh("timeout 5 wget -q -O - http://web/").unchecked().await?;
        let through = client.sh("timeout 10 wget -q -O - http://proxy/").await?;
        println!("directly it is reached: {}; through the proxy: {}", directly.success(), through.stdout());
        if directly.success() || through.stdout() != "hello from the back" {
            return Err(Failure::msg("the networks are not apart"));
        }
        Ok(())
    })
}
