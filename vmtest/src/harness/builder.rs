//! The macro without the macro.

use std::{
    convert::Infallible,
    ops::Deref,
    panic::resume_unwind,
    path::PathBuf,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::sync::oneshot;

use super::{end::End, session::Session, verdict::Verdict};
use crate::{
    cluster::Cluster,
    evidence::{Event, Observer},
    failure::Failure,
    spec::{Allow, Budget, Capability, ClusterSpec, NetworkPlace, NodeSpec, TimedPhase},
};

/// The limit of a cluster that has none.
const FOR_EVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Asks for a cluster in code. Setters never fail: conflicts are found together when it runs.
#[derive(Clone)]
#[must_use = "a cluster is made by `run`"]
pub struct ClusterBuilder {
    spec: ClusterSpec,
    keep: bool,
    observer: Option<Observer>,
}

impl std::fmt::Debug for ClusterBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterBuilder").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Cluster {
    /// A cluster without nodes, to be filled.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder { spec: ClusterSpec::new("cluster"), keep: true, observer: None }
    }
}

impl ClusterBuilder {
    /// The name under which the run is shown.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.spec.name = name.into();
        self
    }

    /// The folder against which the paths of fixtures and kernels are resolved; by default the current one.
    pub fn base(mut self, dir: impl Into<PathBuf>) -> Self {
        self.spec.base = dir.into();
        self
    }

    /// Adds a machine.
    pub fn node(mut self, node: NodeSpec) -> Self {
        self.spec.nodes.push(node);
        self
    }

    /// Where its networks are; by default in a place of their own. In the [host's](NetworkPlace::Host) all programs reach its
    /// machines, and the body is where its caller is. That needs root there, and `nft`.
    pub fn place(mut self, place: NetworkPlace) -> Self {
        self.spec.place = place;
        self
    }

    /// Makes a network of this name although no machine is on it yet; may be called again. Those of the machines that are
    /// added here are made without it.
    pub fn network(mut self, name: impl Into<String>) -> Self {
        self.spec.networks.push(name.into());
        self
    }

    /// The largest packet in bytes, from 1280 to 65521, for bridges, ports and machines alike; 1500 by default.
    pub fn mtu(mut self, bytes: u32) -> Self {
        self.spec.mtu = Some(bytes);
        self
    }

    /// Whether the machines reach what the host reaches, over IPv4, and resolve names as it does. Without, nothing leaves
    /// the cluster's network.
    pub fn egress(mut self, on: bool) -> Self {
        self.spec.egress = on;
        self
    }

    /// Limit for boot and body together, before scaling.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.spec.timeout = Some(limit);
        self
    }

    /// A backend that may run it; may be called again with the next choice.
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.spec.backends.push(name.into());
        self
    }

    /// Requires that the backend can do this; may be called again. Of the backends that may run it the first that runs here and
    /// can do all of it is taken.
    pub fn requires(mut self, capability: Capability) -> Self {
        self.spec.requires.insert(capability);
        self
    }

    /// Keeps room on the host for machines that are added later.
    pub fn budget(mut self, later: Budget) -> Self {
        self.spec.budget = later;
        self
    }

    /// Fails the run when this phase takes longer, which is found when it is over; may be called again for another one. As every
    /// limit of an author it is four times as long under emulation, and is multiplied by `VMTEST_TIMEOUT_SCALE`.
    pub fn phase_budget(mut self, phase: TimedPhase, limit: Duration) -> Self {
        self.spec.phase_budgets.insert(phase, limit);
        self
    }

    /// Lets something pass that would fail the run; may be called again.
    pub fn allow(mut self, what: Allow) -> Self {
        self.spec.allow.insert(what);
        self
    }

    /// Whether a timeline and artifacts of the run are kept, where they can be; they are by default. A program that makes
    /// clusters all the time may not want a directory of each.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Calls this with every event of the run, on whichever thread it happens; it should return soon.
    pub fn observe(mut self, observer: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Makes the cluster, runs the body in it, and removes everything. Blocks the calling thread.
    ///
    /// # Errors
    /// What the body returned, or what kept it from running.
    ///
    /// # Panics
    /// With the body's own panic.
    pub fn run<R: Verdict>(self, body: impl AsyncFnOnce(Cluster) -> R + Send + 'static) -> Result<(), Failure> {
        let session = Session::new(self.spec, self.observer, self.keep);
        session.run(async move |cluster| body(cluster).await.into_result()).into_result()
    }

    /// Makes the cluster and returns once all machines answer. It lives until it is torn down or dropped, unless a
    /// [timeout](Self::timeout) is set. Cancel-safe: dropped, it removes what it has made.
    ///
    /// The caller stays in its own network: calls such as [`sh`](crate::Node::sh), [`write`](crate::Node::write) and
    /// [`forward`](crate::Node::forward) work from there, and [`enter`](Cluster::enter) runs code inside.
    ///
    /// ```no_run
    /// # use vmtest::prelude::*;
    /// # async fn main_of_a_tool() -> Result {
    /// let cluster = Cluster::builder().node(NodeSpec::new("web")).start().await?;
    /// cluster.node("web")?.sh("httpd -h /srv").await?;
    /// let page = cluster.node("web")?.forward(80).await?;
    /// println!("http://{}", page.address());
    /// cluster.teardown().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What kept it from starting.
    pub async fn start(mut self) -> Result<StartedCluster, Failure> {
        self.spec.timeout.get_or_insert(FOR_EVER);
        let session = Session::new(self.spec, self.observer, self.keep);
        let (tell, ready) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<Infallible>();
        let work = move || {
            session.run(async move |cluster| {
                // Whoever started it may have gone; then `stopped` resolves at once.
                drop(tell.send(cluster));
                drop(stopped.await);
                Ok(())
            })
        };
        let thread = thread::Builder::new().name("vmtest-cluster".into()).spawn(work)?;
        match ready.await {
            Ok(cluster) => Ok(StartedCluster { cluster, stop: Some(stop), thread: Some(thread) }),
            Err(_) => Err(ended(thread).expect_err("a body that has not begun cannot have passed")),
        }
    }
}

/// A cluster that was started from code; see [`ClusterBuilder::start`]. Dropped, it is torn down, which blocks for a
/// moment.
#[derive(Debug)]
pub struct StartedCluster {
    cluster: Cluster,
    /// Dropped to end the body.
    stop: Option<oneshot::Sender<Infallible>>,
    thread: Option<JoinHandle<End>>,
}

impl StartedCluster {
    /// Removes everything.
    ///
    /// # Errors
    /// What has ended it before, a guest's panic for example, or what is left on the host.
    pub async fn teardown(mut self) -> Result<(), Failure> {
        self.stop.take();
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let (tell, done) = oneshot::channel();
        // Joining blocks, and the caller's executor may have one thread only.
        thread::Builder::new().name("vmtest-join".into()).spawn(move || drop(tell.send(ended(thread))))?;
        done.await?
    }
}

impl Deref for StartedCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for StartedCluster {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(Err(failure)) = self.thread.take().map(ended) {
            tracing::error!("a dropped cluster: {failure}");
        }
    }
}

fn ended(thread: JoinHandle<End>) -> Result<(), Failure> {
    thread.join().unwrap_or_else(|payload| resume_unwind(payload)).into_result()
}
