//! What one run holds.

use std::{
    fmt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{pending, select_all},
};
use once_cell::sync::OnceCell;
use tokio::{runtime::Handle, sync::watch};

use super::{clock::Clock, hold::Hold, host_side::HostSide, member::Member, scratch::ScratchDir, tasks::Tasks};
use crate::{
    error::Error,
    evidence::{Event, Recorder},
    guest::ssh::{Keys, Ssh},
    host::{Claim, HeldVolumes, Journal, Keeper, LockedDir},
    hypervisor::{Hypervisor, Site},
    net::{Capture, Links},
    plan::{NodePlan, Plan, ROOT, SSH_PORT},
    spec::NodeSpec,
};

/// Plans machines that join later, beside these others and from this index on: for each, the plan and the initramfs of
/// its image.
pub(crate) type Planner =
    Box<dyn Fn(&[NodeSpec], &[NodePlan], usize) -> Result<Vec<(NodePlan, String)>, Error> + Send + Sync>;

/// One cluster: what was planned and what holds it. Shared by all handles; nothing depends on when it is dropped.
pub(crate) struct Run {
    pub(crate) plan: Plan,
    /// Its share of the host, released when everything else is.
    pub(crate) claim: Claim,
    /// What it has of volumes, until no machine has them any more.
    pub(crate) volumes: HeldVolumes,
    pub(crate) dir: LockedDir,
    pub(crate) journal: Journal,
    pub(crate) keeper: Keeper,
    /// One in the network of the test's caller, for a way out through `pasta`.
    pub(crate) outer_keeper: Option<Keeper>,
    /// The runtime, where the cluster's bridge is, on which all work of the framework happens.
    pub(crate) engine: Handle,
    /// A runtime in the network of the test's caller.
    pub(crate) outside: Handle,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    /// In the order of their addresses; late ones come at the end, removed ones go.
    pub(crate) members: watch::Sender<Vec<Arc<Member>>>,
    pub(crate) keys: Arc<Keys>,
    /// Plans machines that join later.
    pub(crate) planner: Planner,
    /// Held while machines are planned that join: how many there have ever been, beyond those of the plan.
    pub(crate) joining: tokio::sync::Mutex<usize>,
    /// Everything that is done, to be stopped before anything is removed.
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) links: OnceCell<Links>,
    /// The links that were in the cluster's network before anything was made.
    pub(crate) links_before: OnceCell<Vec<String>>,
    /// How many bytes of packets of each machine are kept, if they are.
    pub(crate) packets: Option<u64>,
    /// The last of them.
    pub(crate) capture: OnceCell<Arc<Capture>>,
    /// What it has in the network of whoever started the test, if it has something there.
    pub(crate) host: Option<HostSide>,
    /// Where the scratch disks of this run are.
    pub(crate) scratch: ScratchDir,
    pub(crate) started: Instant,
    /// What counts against the test's timeout.
    pub(crate) clock: Arc<Clock>,
    /// Whether it is kept, and who lets it go.
    pub(crate) hold: Arc<Hold>,
    /// Takes down what happens.
    pub(crate) recorder: Arc<Recorder>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("id", &self.dir.id()).field("plan", &self.plan).finish_non_exhaustive()
    }
}

impl Run {
    pub(crate) fn emit(&self, event: &Event) {
        self.recorder.emit(event);
    }

    /// Time since provisioning began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the body is in the network of whoever started the test: where the bridges have an end there.
    pub(crate) fn is_outside(&self) -> bool {
        self.plan.networks.iter().any(|network| network.host.is_some())
    }

    /// Everything whose children end with the run.
    pub(crate) fn keepers(&self) -> impl Iterator<Item = &Keeper> {
        [&self.keeper].into_iter().chain(&self.outer_keeper)
    }

    /// The machines of now.
    pub(crate) fn members(&self) -> Vec<Arc<Member>> {
        self.members.borrow().clone()
    }

    /// What was planned for the machines of now.
    pub(crate) fn nodes(&self) -> Vec<NodePlan> {
        self.members().iter().map(|member| member.plan.clone()).collect()
    }

    /// A machine that is planned and not yet made.
    pub(crate) fn new_member(&self, plan: NodePlan, base_initramfs: PathBuf) -> Arc<Member> {
        let address = (plan.first_interface().ip, SSH_PORT).into();
        let login = plan.login.as_deref().unwrap_or(ROOT);
        let ssh = Ssh::new(address, login, self.keys.clone(), self.engine.clone());
        let dir = self.dir.path().join(&plan.name);
        let (recorder, tasks) = (self.recorder.clone(), self.tasks.clone());
        Arc::new(Member::new(plan, base_initramfs, dir, ssh, self.started, tasks, recorder))
    }

    /// Where this machine is started.
    ///
    /// # Errors
    /// When there is no network yet.
    pub(crate) fn site<'a>(&'a self, member: &'a Member) -> Result<Site<'a>, Error> {
        let links = self.links.get_or_try_init(Links::open)?;
        let (node, networks) = (&member.plan, &self.plan.networks[..]);
        Ok(Site { node, networks, dir: &member.dir, keeper: &self.keeper, links, volumes: &self.volumes })
    }

    /// These machines belong to the cluster from now on.
    pub(crate) fn join(&self, members: Vec<Arc<Member>>) {
        self.members.send_modify(|all| all.extend(members));
    }

    /// This machine does not any more.
    pub(crate) fn leave(&self, name: &str) {
        self.members.send_modify(|all| all.retain(|member| member.plan.name != name));
    }

    /// Does this on the engine; a teardown stops it.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Resolves when a guest's kernel has panicked, with the error that says so. Pending for ever otherwise.
    pub(crate) async fn panicked(&self) -> Error {
        let mut members = self.members.subscribe();
        loop {
            let now = members.borrow_and_update().clone();
            // With a future that never ends, because there may be no machine at all.
            let panics = now.iter().map(|member| member.panicked().boxed()).chain([pending().boxed()]);
            tokio::select! {
                (error, ..) = select_all(panics) => return error,
                // The sender is a field of `self`, so it is there.
                _ = members.changed() => {}
            }
        }
    }
}
