//! Firecracker as a [`Hypervisor`].

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::task::AbortHandle;

use super::{
    FirecrackerFacts,
    api::{API_SOCKET, VmState, api, info, patch_state, put},
    config::{ACTIONS, Action, ActionType},
    halt::end_at_halt,
    probe,
    render::{render, save},
};
use crate::{
    error::{Error, Kind},
    host::{Ended, Process, ProcessId},
    hypervisor::{
        ApiCall, FIRECRACKER, Hypervisor, LaunchPlan, Machine, Saved, Search, Site, able, await_socket, http::HttpApi,
    },
    plan::{Capabilities, NodePlan},
};

/// Memory of the VMM itself: its specification says at most 5 MiB with one CPU. With room for more CPUs and disks.
const OVERHEAD: u64 = 16 << 20;
/// How the VMM ends when its guest has reset itself, by the keyboard's controller.
const GUEST_RESET: i32 = 0;

/// Firecracker on this host.
#[derive(Debug)]
pub(crate) struct Firecracker {
    facts: FirecrackerFacts,
}

impl Firecracker {
    /// Finds Firecracker, where KVM runs guest code.
    ///
    /// # Errors
    /// [`Kind::Missing`] with what to do about it.
    pub(crate) fn find(search: &Search) -> Result<Self, Error> {
        Ok(Self { facts: probe(search)? })
    }
}

impl Hypervisor for Firecracker {
    fn name(&self) -> &'static str {
        FIRECRACKER
    }

    fn describe(&self) -> String {
        format!("Firecracker {} with KVM", self.facts.version)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { can: able(FIRECRACKER, &self.lacks()), overhead: OVERHEAD, ..Capabilities::default() }
    }

    fn boots_elf_only(&self) -> bool {
        true
    }

    fn render(&self, node: &NodePlan, from: Option<&Saved>) -> LaunchPlan {
        render(node, from, &self.facts)
    }

    fn connect<'a>(
        &'a self,
        plan: &'a LaunchPlan,
        site: &'a Site<'a>,
        vmm: &'a ProcessId,
    ) -> BoxFuture<'a, Result<Arc<dyn Machine>, Error>> {
        Box::pin(async move {
            let failed = |what: &'static str| move |e| Error::new(Kind::Host, what).caused_by(e);
            await_socket(site.dir, API_SOCKET).await.map_err(failed("cannot watch for the VMM's API socket"))?;
            let console = site.dir.join(&plan.console);
            // Behind what earlier boots have said: no call has been made yet, so this one has said nothing.
            let position = fs::metadata(&console).map_err(failed("cannot read the console"))?.len();
            let vmm = Process::find(vmm).map_err(failed("cannot watch the VMM"))?;
            let api = api(site.dir.to_owned());
            let kernel = &site.node.kernel;
            for call in &plan.api {
                // The kernel is loaded when the machine is started, and what is said of it does not name it.
                let start = |e: Error| Error::new(e.kind(), format!("cannot start the kernel {kernel}")).caused_by(e);
                api.call(call).await.map_err(|e| if call.path == ACTIONS { start(e) } else { e })?;
            }
            let off = Arc::new(AtomicBool::new(false));
            // One that is gone has no guest that could switch itself off.
            let halt = vmm.map(|vmm| tokio::spawn(follow(console, position, vmm, off.clone())).abort_handle());
            Ok(Arc::new(Connected { api, off, halt }) as Arc<dyn Machine>)
        })
    }
}

async fn follow(console: PathBuf, position: u64, vmm: Process, off: Arc<AtomicBool>) {
    if let Err(e) = end_at_halt(&console, position, &vmm, &off).await {
        tracing::warn!("it will not be seen that this guest switches itself off: {}: {e}", console.display());
    }
}

/// A Firecracker that has booted its machine.
#[derive(Debug)]
struct Connected {
    api: HttpApi,
    /// Whether the guest has switched itself off.
    off: Arc<AtomicBool>,
    /// Waits for that.
    halt: Option<AbortHandle>,
}

impl Connected {
    fn told(&self, call: ApiCall) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.api.call(&call).await.map(drop) })
    }
}

impl Machine for Connected {
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(info(&self.api).await?.state == VmState::Running) })
    }

    fn described(&self) -> BoxFuture<'_, Result<Value, Error>> {
        Box::pin(async { Ok(serde_json::to_value(info(&self.api).await?).expect("an answer is plain data")) })
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told(patch_state("Paused"))
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told(patch_state("Resumed"))
    }

    fn save<'a>(&'a self, dir: &'a str) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async move {
            self.api.call(&save(dir)).await?;
            Ok(Saved { dir: dir.to_owned(), mappable: true })
        })
    }

    /// There is no button: Ctrl-Alt-Del has the guest restart, by which the VMM ends too.
    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told(put(ACTIONS, Action { action_type: ActionType::SendCtrlAltDel }))
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { Err(Error::new(Kind::Host, "Firecracker has no call that ends it, and ends at SIGTERM")) })
    }

    fn ended(&self, how: Ended) -> BoxFuture<'_, bool> {
        Box::pin(async move { how.code == Some(GUEST_RESET) })
    }

    fn switched_off(&self) -> bool {
        self.off.load(Ordering::Acquire)
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(halt) = &self.halt {
            halt.abort();
        }
    }
}
