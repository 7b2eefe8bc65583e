//! A machine that is saved once and goes back to that, as often as it takes. `cargo run --example snapshot`.

use vmtest::{prelude::*, spec::Capability};

fn main() -> Result {
    vmtest::enter_rootless()?;
    let cluster = Cluster::builder().name("snapshot").requires(Capability::Snapshot).node(NodeSpec::new("server"));
    cluster.run(async |cluster| {
        let server = cluster.node("server")?;
        server.sh("echo installed >/root/state").await?;
        let installed = server.snapshot().await?;
        for experiment in ["rm /root/state", "echo broken >/root/state"] {
            server.sh(experiment).await?;
            server.restore(&installed).await?;
            let state = server.sh("cat /root/state").await?.stdout();
            println!("after `{experiment}` and a restore: {state}");
            if state != "installed" {
                return Err(Failure::msg(format!("{state} after `{experiment}`")));
            }
        }
        Ok(())
    })
}
