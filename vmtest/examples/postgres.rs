//! A database as a parameter of a test: the type says what machine it needs, starts the server, waits until it answers,
//! and hands out a connection string.
//!
//! It needs a guest with PostgreSQL 15 as Debian 12 packages it, given as `#[node(image = "..")]`. `main` shows the same
//! type without the macro. The end-to-end tests have a service of the same shape that runs in the `micro` image:
//! `tests/tests/extractors.rs`.

use vmtest::{Condition, FromCluster, Param, prelude::*, spec::ClusterSpec};

/// PostgreSQL's own.
const PORT: u16 = 5432;
/// What a server with Debian's settings uses under a small load, twice.
const MEMORY: u64 = 512 << 20;

/// A PostgreSQL server on a machine of its own, which has the parameter's name.
struct Postgres {
    node: Node,
}

impl Postgres {
    async fn start(node: Node) -> Result<Self> {
        // Nobody but the machines of this test can reach it.
        node.sh("echo 'host all all all trust' >> /etc/postgresql/15/main/pg_hba.conf").await?;
        node.sh("pg_ctlcluster 15 main start -o \"-c listen_addresses='*'\"").await?;
        // The port is open before the server has recovered.
        node.wait_for(Condition::port(PORT).and(Condition::command("pg_isready"))).await?;
        Ok(Self { node })
    }

    /// Where clients connect, from the body as well as from other machines.
    fn url(&self) -> String {
        format!("postgres://postgres@{}:{PORT}/postgres", self.node.ip())
    }
}

impl FromCluster for Postgres {
    fn declare(param: &Param, spec: &mut ClusterSpec) {
        let mut node = param.node();
        node.settings.memory.get_or_insert(MEMORY);
        spec.nodes.push(node);
    }

    async fn extract(param: &Param, cluster: &Cluster) -> Result<Self> {
        Self::start(cluster.node(param.name)?).await.context("PostgreSQL")
    }
}

#[vm_test]
#[ignore = "needs images with PostgreSQL"]
async fn a_row_survives_a_power_cut(database: Postgres, client: Node) -> Result {
    let sql = async |sql: &str| client.sh(format!("psql {} -Atc '{sql}'", database.url())).await;
    sql("create table t (n int); insert into t values (42)").await?;

    database.node.kill().await?;
    database.node.start().await?;
    database.node.sh("pg_ctlcluster 15 main start").await?;
    database.node.wait_until("pg_isready").await?;
    assert_eq!(sql("select n from t").await?.stdout(), "42");
    Ok(())
}

fn main() -> Result {
    let node = NodeSpec::new("database").image("postgres").memory(MEMORY);
    Cluster::builder().node(node).run(async |cluster| {
        let database = Postgres::start(cluster.node("database")?).await?;
        println!("{} answers", database.url());
        Ok::<_, Failure>(())
    })
}
