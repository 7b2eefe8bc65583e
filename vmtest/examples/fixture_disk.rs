//! A directory and files that the program makes up as read-only disks of a machine. `cargo run --example fixture_disk`.

use vmtest::prelude::*;

fn main() -> Result {
    vmtest::enter_rootless()?;
    let made_up = Fixture::from_files([("app.conf", "port = 80\n"), ("bin/hello", "#!/bin/sh\necho hello\n")])
        .mode("bin/hello", 0o755)
        .label("app");
    let node =
        NodeSpec::new("server").fixture(vmtest::fixture!("examples/data/www"), "/srv/www").fixture(made_up, "/app");
    Cluster::builder().name("fixture disk").node(node).run(async |cluster| {
        let server = cluster.node("server")?;
        println!("/srv/www/index.html: {}", server.sh("cat /srv/www/index.html").await?.stdout());
        println!("/app/bin/hello: {}", server.sh("/app/bin/hello").await?.stdout());
        let write = server.sh("touch /app/x").unchecked().await?;
        println!("writing to it: {}", write.stderr());
        if write.success() { Err(Failure::msg("a fixture could be written")) } else { Ok(()) }
    })
}
