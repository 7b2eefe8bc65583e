//! QEMU as a [`Hypervisor`].

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::{
    Accelerator, QemuFacts,
    commands::{Cont, QueryStatus, Quit, Screendump, Stop, SystemPowerdown},
    hotplug::{add_disk, remove_disk},
    probe,
    qmp::Qmp,
    render::{QMP_SOCKET, render},
    saving::save,
    sizes::{Balloon, QueryBalloon, add_cpus},
};
use crate::{
    error::{Error, Kind},
    host::{Ended, ProcessId},
    hypervisor::{
        ApiCall, Hypervisor, LaunchPlan, Machine, QEMU, Saved, Search, Site, able, connect_socket, kvm::why_not_nested,
    },
    plan::{Capabilities, DiskPlan, DiskRatePlan, NodePlan},
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
        Capabilities { emulated, can: able(QEMU, &self.lacks()), overhead, layers: true, tells: true }
    }

    fn lacks(&self) -> BTreeMap<Capability, String> {
        let kvm = self.accelerator == Accelerator::Kvm;
        let nested = kvm.then(why_not_nested).flatten().map(|why| (Capability::Nested, why));
        let older = || (Capability::Screenshot, "it writes no PNG files, which QEMU does from 7.1 on".to_owned());
        let screenshot = (!self.facts.writes_png).then(older);
        nested.into_iter().chain(screenshot).collect()
    }

    fn render(&self, node: &NodePlan, from: Option<&Saved>) -> LaunchPlan {
        render(node, from, &self.facts.program.to_string_lossy(), self.accelerator)
    }

    fn connect<'a>(
        &'a self,
        plan: &'a LaunchPlan,
        site: &'a Site<'a>,
        vmm: &'a ProcessId,
    ) -> BoxFuture<'a, Result<Arc<dyn Machine>, Error>> {
        Box::pin(async move {
            let stream = connect_socket(site.dir, QMP_SOCKET)
                .await
                .map_err(|e| Error::new(Kind::Host, "cannot reach QEMU's control socket").caused_by(e))?;
            let qmp = Qmp::connect(stream).await?;
            if plan.goes_on {
                let_in(&qmp, &plan.api).await?;
            } else {
                make(&qmp, &plan.api).await?;
            }
            Ok(Arc::new(Connected { qmp, folder: site.dir.to_owned(), vmm: vmm.clone() }) as Arc<dyn Machine>)
        })
    }
}

/// Lets a machine go on that was saved.
async fn let_in(qmp: &Qmp, calls: &[ApiCall]) -> Result<(), Error> {
    // From before the calls: what is said meanwhile counts.
    let arrival = qmp.arrival();
    make(qmp, calls).await?;
    arrival.await?;
    qmp.execute(Cont {}).await.map(drop)
}

async fn make(qmp: &Qmp, calls: &[ApiCall]) -> Result<(), Error> {
    for ApiCall { path, body, .. } in calls {
        qmp.call(path, body.as_ref().unwrap_or(&Value::Null)).await?;
    }
    Ok(())
}

/// A QEMU that runs its machine.
#[derive(Debug)]
struct Connected {
    qmp: Qmp,
    /// The node's folder.
    folder: PathBuf,
    vmm: ProcessId,
}

impl Machine for Connected {
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(self.qmp.execute(QueryStatus {}).await?.running) })
    }

    fn described(&self) -> BoxFuture<'_, Result<Value, Error>> {
        Box::pin(async {
            let status = self.qmp.execute(QueryStatus {}).await?;
            Ok(serde_json::to_value(status).expect("an answer is plain data"))
        })
    }

    fn pause(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.qmp.execute(Stop {}).await.map(drop) })
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.qmp.execute(Cont {}).await.map(drop) })
    }

    fn save<'a>(&'a self, dir: &'a str) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(save(&self.qmp, &self.vmm, &self.folder, dir))
    }

    fn set_memory(&self, bytes: u64) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.qmp.execute(Balloon { value: bytes }).await.map(drop) })
    }

    fn memory(&self) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async { Ok(self.qmp.execute(QueryBalloon {}).await?.actual) })
    }

    fn add_cpus(&self, count: u32) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(add_cpus(&self.qmp, count))
    }

    fn add_disk<'a>(
        &'a self,
        place: usize,
        disk: &'a DiskPlan,
        rate: DiskRatePlan,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(add_disk(&self.qmp, place, disk, rate))
    }

    fn remove_disk(&self, place: usize, rate: DiskRatePlan) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(remove_disk(&self.qmp, place, rate))
    }

    fn screenshot<'a>(&'a self, file: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let dump = Screendump { filename: file.to_owned(), format: "png" };
        Box::pin(async move { self.qmp.execute(dump).await.map(drop) })
    }

    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.qmp.execute(SystemPowerdown {}).await.map(drop) })
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async { self.qmp.execute(Quit {}).await.map(drop) })
    }

    fn panicked(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.qmp.panicked())
    }

    fn ended(&self, _: Ended) -> BoxFuture<'_, bool> {
        Box::pin(async { self.qmp.last_words().await.is_some_and(|shutdown| shutdown.reason == GUEST_RESET) })
    }
}
