//! `cargo vmtest demo`: three machines boot, talk and vanish.

mod screen;

use std::{fs, process::ExitCode, sync::Arc};

use screen::Screen;
use vmtest::{Cluster, Result, evidence::Event, spec::NodeSpec};

const NODES: [&str; 3] = ["alice", "bob", "carol"];
const MOUNT: &str = "/srv/greeting";

/// Runs the demonstration.
pub(crate) fn run(json: bool) -> Result<ExitCode, String> {
    let dir = tempfile::tempdir().map_err(|e| format!("cannot make a temporary directory: {e}"))?;
    let screen = Arc::new(Screen::new(&NODES, json));
    let mut builder = Cluster::builder().name("demo");
    for name in NODES {
        let greeting = dir.path().join(name);
        let made = fs::create_dir(&greeting).and_then(|()| fs::write(greeting.join("hello.txt"), greeting_of(name)));
        made.map_err(|e| format!("cannot write {}: {e}", greeting.display()))?;
        builder = builder.node(NodeSpec::new(name).fixture(&greeting, MOUNT));
    }
    let observed = screen.clone();
    let talker = screen.clone();
    let result = builder
        .observe(move |event: &Event| observed.show(event))
        .run(async move |cluster| talk(&cluster, &talker).await);
    screen.finish();
    result.map(|()| ExitCode::SUCCESS).map_err(|e| e.to_string())
}

fn greeting_of(name: &str) -> String {
    format!("hello from the disk of {name}\n")
}

async fn talk(cluster: &Cluster, screen: &Screen) -> Result {
    for node in cluster.nodes() {
        for other in cluster.nodes().iter().filter(|other| other.name() != node.name()) {
            let ping = node.sh(format!("ping -c 1 -W 2 {}", other.name())).await?;
            let time =
                ping.stdout().split("time=").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("?").to_owned();
            screen.say(&format!("{} pings {} ({}): {time}", node.name(), other.name(), other.ip()));
        }
    }
    for node in cluster.nodes() {
        let text = node.sh(format!("cat {MOUNT}/hello.txt")).await?;
        let refused = node.sh(format!("touch {MOUNT}/x")).unchecked().await?;
        if refused.success() {
            return Err(vmtest::Failure::msg(format!("{} could write to its fixture", node.name())));
        }
        screen.say(&format!("{} reads `{}` and may not write", node.name(), text.stdout()));
    }
    screen.body_done();
    Ok(())
}
