//! cloud-hypervisor as a [`Hypervisor`].

use std::{collections::BTreeMap, future::pending, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::{task::AbortHandle, time::sleep};

use super::{
    ChvFacts,
    api::{VmState, api, info, put},
    config::Disk,
    events::{EVENTS, end_at_reset, has_reset, panicked},
    probe,
    render::{disk, render, url},
};
use crate::{
    error::{Error, Kind},
    host::{Ended, Process, ProcessId},
    hypervisor::{
        ApiCall, CLOUD_HYPERVISOR, Hypervisor, LaunchPlan, Machine, Saved, Search, Site, able, http::HttpApi,
        kvm::why_not_nested,
    },
    plan::{Capabilities, DiskPlan, DiskRatePlan, NodePlan},
    spec::Capability,
};

/// Memory of the VMM itself: 11 MiB once a guest with one CPU answers, with room for more CPUs and disks.
const OVERHEAD: u64 = 32 << 20;

/// A guest lets a disk go in some 10 ms, of which no event tells.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// cloud-hypervisor on this host.
#[derive(Debug)]
pub(crate) struct CloudHypervisor {
    facts: ChvFacts,
}

impl CloudHypervisor {
    /// Finds cloud-hypervisor, where KVM runs guest code.
    ///
    /// # Errors
    /// [`Kind::Missing`] with what to do about it.
    pub(crate) fn find(search: &Search) -> Result<Self, Error> {
        Ok(Self { facts: probe(search)? })
    }
}

impl Hypervisor for CloudHypervisor {
    fn name(&self) -> &'static str {
        CLOUD_HYPERVISOR
    }

    fn describe(&self) -> String {
        let confined =
            if self.facts.landlock { "" } else { ", without Landlock, for which Linux is too old or not set" };
        format!("cloud-hypervisor {} with KVM{confined}", self.facts.version)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { can: able(CLOUD_HYPERVISOR, &self.lacks()), overhead: OVERHEAD, ..Capabilities::default() }
    }

    fn lacks(&self) -> BTreeMap<Capability, String> {
        why_not_nested().map(|why| (Capability::Nested, why)).into_iter().collect()
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
            let api = api(site.dir.to_owned());
            for call in &plan.api {
                api.call(call).await?;
            }
            // The file is there: the VMM makes it before it answers.
            let events = site.dir.join(EVENTS);
            let watch = Process::find(vmm).map_err(|e| Error::new(Kind::Host, "cannot watch the VMM").caused_by(e))?;
            // One that is gone has no guest that could reset itself.
            let reset = watch.map(|vmm| tokio::spawn(follow(events.clone(), vmm)).abort_handle());
            let memory = site.node.max_memory.unwrap_or(site.node.memory);
            Ok(Arc::new(Connected { api, events, memory, reset }) as Arc<dyn Machine>)
        })
    }
}

/// What the disk at this place is called.
fn plugged_in(place: usize) -> String {
    format!("hotplug{place}")
}

async fn follow(events: PathBuf, vmm: Process) {
    if let Err(e) = end_at_reset(&events, &vmm).await {
        tracing::warn!("a reset of this guest will not be seen: {}: {e}", events.display());
    }
}

/// A cloud-hypervisor that has booted its machine.
#[derive(Debug)]
struct Connected {
    api: HttpApi,
    events: PathBuf,
    /// In bytes, with what is in its balloon.
    memory: u64,
    /// Waits for the guest to reset itself.
    reset: Option<AbortHandle>,
}

impl Connected {
    /// Tells it what this makes of the memory that the machine has with what is in its balloon.
    fn resize(&self, to: impl FnOnce(u64) -> Value + Send + 'static) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(
            async move { self.api.call(&ApiCall { body: Some(to(self.memory)), ..put("vm.resize") }).await.map(drop) },
        )
    }

    fn told(&self, what: &'static str) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.api.call(&put(what)).await.map(drop) })
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
        self.told("vm.pause")
    }

    fn resume(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told("vm.resume")
    }

    fn save<'a>(&'a self, dir: &'a str) -> BoxFuture<'a, Result<Saved, Error>> {
        Box::pin(async move {
            let to = serde_json::json!({ "destination_url": url(dir) });
            self.api.call(&ApiCall { body: Some(to), ..put("vm.snapshot") }).await?;
            Ok(Saved { dir: dir.to_owned(), mappable: true })
        })
    }

    fn set_memory(&self, bytes: u64) -> BoxFuture<'_, Result<(), Error>> {
        self.resize(move |max| serde_json::json!({ "desired_balloon": max.saturating_sub(bytes) }))
    }

    fn memory(&self) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async {
            let actual = info(&self.api).await?.memory_actual_size;
            actual.ok_or_else(|| Error::new(Kind::Host, "cloud-hypervisor does not say how much memory the guest has"))
        })
    }

    fn add_cpus(&self, count: u32) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            // Fewer would be taken out.
            if info(&self.api).await?.config.cpus.boot_vcpus >= count {
                return Ok(());
            }
            self.resize(move |_| serde_json::json!({ "desired_vcpus": count })).await
        })
    }

    fn add_disk<'a>(
        &'a self,
        place: usize,
        plan: &'a DiskPlan,
        rate: DiskRatePlan,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let disk = Disk { id: Some(plugged_in(place)), ..disk(plan, rate) };
            let disk = serde_json::to_value(disk).expect("a configuration is plain data");
            self.api.call(&ApiCall { body: Some(disk), ..put("vm.add-disk") }).await.map(drop)
        })
    }

    fn remove_disk(&self, place: usize, _: DiskRatePlan) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let id = plugged_in(place);
            let body = Some(serde_json::json!({ "id": id }));
            self.api.call(&ApiCall { body, ..put("vm.remove-device") }).await?;
            while info(&self.api).await?.device_tree.contains_key(&id) {
                sleep(LOOK_EVERY).await;
            }
            Ok(())
        })
    }

    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told("vm.power-button")
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told("vmm.shutdown")
    }

    fn panicked(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if let Err(e) = panicked(&self.events).await {
                tracing::warn!("a panic of this guest is seen on its console alone: {}: {e}", self.events.display());
                pending().await
            }
        })
    }

    fn ended(&self, _: Ended) -> BoxFuture<'_, bool> {
        Box::pin(async { has_reset(&self.events).unwrap_or_default() })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Some(reset) = &self.reset {
            reset.abort();
        }
    }
}
