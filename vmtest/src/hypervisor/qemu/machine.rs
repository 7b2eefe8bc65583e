//! QEMU as a [`Hypervisor`].

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::BoxFuture;

use super::{
    Accelerator, QemuFacts, probe,
    qmp::{Cont, Qmp, QueryStatus, Quit, Stop, SystemPowerdown},
    render::{QMP_SOCKET, render},
};
use crate::{
    error::{Error, Kind},
    host::{Ended, ProcessId},
    hypervisor::{Hypervisor, LaunchPlan, Machine, QEMU, Search, Site, able, connect_socket, kvm::why_not_nested},
    plan::{Capabilities, NodePlan},
    spec::Capability,
};

/// What QEMU gives as the reason for a shutdown when the guest has reset itself, under `-no-reboot`.
const GUEST_RESET: &str = "guest-reset";

/// Memory of QEMU itself: 54 MiB of anonymous memory and its own pages of files, once a guest answers.
const OVERHEAD: u64 = 64 << 20;
/// Memory for translated code: 62 MiB once a guest answers, and more with each program that it runs first.
const TRANSLATED: u64 = 96 << 20;

/// QEMU on this host.
#[derive(Debug)]
pub(crate) struct Qemu {
    facts: QemuFacts,
    accelerator: Accelerator,
}

impl Qemu {
    /// Finds QEMU and decides how it will run guests: with KVM where the probe's guest code ran, else by emulation.
    ///
    /// # Errors
    /// [`Kind::Missing`] with the line that installs it.
    pub(crate) fn find(search: &Search) -> Result<Self, Error> {
        let facts = probe(search)?;
        let accelerator = if facts.kvm.works() { Accelerator::Kvm } else { Accelerator::Tcg };
        Ok(Self { facts, accelerator })
    }
}

impl Hypervisor for Qemu {
    fn name(&self) -> &'static str {
        QEMU
    }

    fn describe(&self) -> String {
        match self.accelerator {
            Accelerator::Kvm => format!("QEMU {} with KVM", self.facts.version),
            Accelerator::Tcg => format!("QEMU {} under emulation ({})", self.facts.version, self.facts.kvm),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let (emulated, overhead) = match self.accelerator {
            Accelerator::Kvm => (false, OVERHEAD),
            Accelerator::Tcg => (true, OVERHEAD + TRANSLATED),
        };
        Capabilities { emulated, can: able(QEMU, &self.lacks()), overhead }
    }

    fn lacks(&self) -> BTreeMap<Capability, String> {
        match self.accelerator {
            Accelerator::Kvm => why_not_nested().map(|why| (Capability::Nested, why)).into_iter().collect(),
            Accelerator::Tcg => BTreeMap::new(),
        }
    }

    fn render(&self, node: &NodePlan) -> LaunchPlan {
        render(node, &self.facts.program.to_string_lossy(), self.accelerator)
    }

    fn connect<'a>(&'a self, site: &'a Site<'a>, _: &'a ProcessId) -> BoxFuture<'a, Result<Arc<dyn Machine>, Error>> {
        Box::pin(async move {
            let stream = connect_socket(site.dir, QMP_SOCKET)
                .await
                .map_err(|e| Error::new(Kind::Host, "cannot reach QEMU's control socket").caused_by(e))?;
            Ok(Arc::new(Qmp::connect(stream).await?) as Arc<dyn Machine>)
        })
    }
}

impl Machine for Qmp {
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(self.execute(QueryStatus {}).await?.running) })
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.execute(Stop {}).await.map(drop) })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.execute(Cont {}).await.map(drop) })
    }

    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.execute(SystemPowerdown {}).await.map(drop) })
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.execute(Quit {}).await.map(drop) })
    }

    fn ended(&self, _: Ended) -> BoxFuture<'_, bool> {
        Box::pin(async { self.last_words().await.is_some_and(|shutdown| shutdown.reason == GUEST_RESET) })
    }
}
