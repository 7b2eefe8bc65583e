//! Parameters of types that are not ours: they declare their machine and start what runs on it.

use vmtest::{FromCluster, Param, prelude::*, spec::ClusterSpec};
use vmtest_tests::Victim;

/// Where the service listens.
const PORT: u16 = 5432;

/// A service on a machine of its own; `vmtest/examples/postgres.rs` has the same shape.
struct Web {
    node: Node,
}

impl Web {
    fn url(&self) -> String {
        format!("http://{}:{PORT}/", self.node.name())
    }
}

impl FromCluster for Web {
    fn declare(param: &Param, spec: &mut ClusterSpec) {
        let mut node = param.node();
        node.settings.memory.get_or_insert(192 << 20);
        spec.nodes.push(node);
    }

    async fn extract(param: &Param, cluster: &Cluster) -> Result<Self> {
        let node = cluster.node(param.name)?;
        node.write("/srv/index.html", format!("the page of {}", node.name())).await?;
        // It detaches before it listens.
        node.sh(format!("(sleep 0.2; exec httpd -f -p {PORT} -h /srv) >/dev/null 2>&1 &")).await?;
        node.wait_for_port(PORT).await?;
        Ok(Self { node })
    }
}

#[vm_test(backend = "qemu, fake")]
async fn a_service_is_a_parameter(
    shop: Web,
    #[node(cpus = 2, memory = "160MiB")] bank: Web,
    client: Node,
    cluster: Cluster,
) -> Result {
    for (service, name) in [(&shop, "shop"), (&bank, "bank")] {
        let page = client.sh(format!("wget -q -O - {}", service.url())).await?;
        assert_eq!(page.stdout(), format!("the page of {name}"));
    }
    let sizes: Vec<_> = cluster.plan().nodes.iter().map(|node| (node.cpus, node.memory >> 20)).collect();
    assert_eq!(sizes[..2], [(1, 192), (2, 160)]);
    Ok(())
}

/// Services that do not come up, each run by a test below.
mod victims {
    use super::*;

    struct Broken;

    impl FromCluster for Broken {
        fn declare(_: &Param, _: &mut ClusterSpec) {}

        async fn extract(_: &Param, _: &Cluster) -> Result<Self> {
            "no number".parse::<u16>().context("the port of the service")?;
            Ok(Self)
        }
    }

    /// The line of the question mark above.
    pub(super) const FAILURE_LINE: u32 = line!() - 6;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_service_that_does_not_come_up_fails_the_test"]
    async fn broken(_service: Broken) {
        println!("the body has begun");
    }
}

#[test]
fn a_service_that_does_not_come_up_fails_the_test() {
    let place = format!("{}:{}:", file!(), victims::FAILURE_LINE);
    let said = ["the port of the service: invalid digit found in string", place.as_str()];
    let ended = Victim::new("broken").run().assert_failed_with(&said);
    assert!(!ended.text().contains("the body has begun"), "{}", ended.text());
    ended.assert_nothing_left();
}
