//! The handle to a whole cluster.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{runtime::Handle, task::spawn_blocking};

use super::{
    hold::{Stage, hold},
    node::Node,
    run::Run,
};
use crate::{
    error::{Error, Kind},
    evidence::Artifacts,
    plan::Plan,
};

/// All machines of a test. Clones are handles to the same cluster, and work on any thread and any executor.
///
/// The cluster lives as long as the test's body, whether a handle to it is left or not. A handle that outlives it is
/// harmless: [`add`](Self::add), [`remove`](Self::remove) and all calls on its machines end at once with
/// [`Kind::TornDown`].
#[derive(Debug, Clone)]
pub struct Cluster {
    pub(super) run: Arc<Run>,
}

impl Cluster {
    pub(crate) fn new(run: Arc<Run>) -> Self {
        Self { run }
    }

    /// All machines, in the order of their addresses.
    pub fn nodes(&self) -> Vec<Node> {
        self.run.members().into_iter().map(|member| Node::new(self.run.clone(), member)).collect()
    }

    /// The machine of this name.
    ///
    /// # Errors
    /// [`Kind::Spec`], with the names that there are.
    pub fn node(&self, name: &str) -> Result<Node, Error> {
        let members = self.run.members();
        let found = members.iter().find(|member| member.plan.name == name);
        found.map(|member| Node::new(self.run.clone(), member.clone())).ok_or_else(|| {
            let names: Vec<_> = members.iter().map(|member| member.plan.name.as_str()).collect();
            Error::new(Kind::Spec, format!("there is no node `{name}`: the cluster has {}", names.join(", ")))
        })
    }

    /// What was decided for this cluster.
    pub fn plan(&self) -> &Plan {
        &self.run.plan
    }

    /// The run's id, the name of its run directory.
    pub fn id(&self) -> &str {
        self.run.dir.id()
    }

    /// Where this run keeps files beyond its end.
    pub fn artifacts(&self) -> Artifacts {
        Artifacts::new(self.run.recorder.clone())
    }

    /// Keeps the cluster as it is, so that a person can look into it: prints, in spite of libtest's capture, how to get in, and
    /// returns when somebody lets it go on, with Enter on the terminal or `cargo vmtest resume`. That time counts against no
    /// timeout of the test. With `VMTEST_HOLD=never` it returns at once, for hosts where nobody would come. Cancel-safe.
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn body(node: Node, cluster: Cluster) -> Result {
    /// node.sh("pg_ctl start").await?;
    /// cluster.hold().await?; // look around: `cargo vmtest ssh`
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Kind::TornDown`] when the cluster is gone.
    pub async fn hold(&self) -> Result<(), Error> {
        let run = &self.run;
        let kept = async {
            if run.hold.is_forbidden() {
                tracing::warn!("`Cluster::hold` of `{}` does nothing: VMTEST_HOLD=never", run.plan.name);
            } else {
                hold(run, Stage::InBody, "waits in its body").await;
            }
            Ok(())
        };
        run.tasks.unless_over(kept).await
    }

    /// The same for a run that has no body.
    ///
    /// # Errors
    /// Those of [`hold`](Self::hold).
    pub(crate) async fn hold_without_body(&self) -> Result<(), Error> {
        let kept = async {
            hold(&self.run, Stage::WithoutBody, "is up").await;
            Ok(())
        };
        self.run.tasks.unless_over(kept).await
    }

    /// Runs this in the network of whoever started the test: for a database on the host's loopback, a registry. It gets
    /// a thread of its own, so it may block.
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn body(cluster: Cluster) -> Result {
    /// let page = cluster.outside(async || std::net::TcpStream::connect("127.0.0.1:8080")).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Panics
    /// With the panic of what it runs, or when the cluster is gone.
    pub async fn outside<T: Send + 'static>(&self, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        on_a_thread_of(&self.run, &self.run.outside, work).await
    }

    /// Runs this inside the cluster's network, where the body of a test is anyway: for a cluster that was
    /// [started](crate::ClusterBuilder::start) from code. It gets a thread of its own, so it may block.
    ///
    /// # Panics
    /// With the panic of what it runs, or when the cluster is gone.
    pub async fn enter<T: Send + 'static>(&self, work: impl AsyncFnOnce() -> T + Send + 'static) -> T {
        let inside = if self.run.is_outside() { &self.run.outside } else { &self.run.engine };
        on_a_thread_of(&self.run, inside, work).await
    }
}

/// Runs this on a new thread that belongs to a thread of the runtime: a thread is in the network of its parent.
async fn on_a_thread_of<T: Send + 'static>(
    run: &Run,
    runtime: &Handle,
    work: impl AsyncFnOnce() -> T + Send + 'static,
) -> T {
    // There is no value to give back and no network to run in, and waiting would be for ever.
    let gone = || panic!("{}", Error::torn_down());
    if run.tasks.are_over() {
        gone();
    }
    let handle = runtime.clone();
    let nested = runtime.spawn(async move { spawn_blocking(move || handle.block_on(work())).await });
    match nested.await.flatten() {
        Ok(value) => value,
        Err(e) => match e.try_into_panic() {
            Ok(payload) => resume_unwind(payload),
            // The runtime was shut down with the cluster.
            Err(_) => gone(),
        },
    }
}
