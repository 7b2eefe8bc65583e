//! cloud-hypervisor as a [`Hypervisor`].

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::task::AbortHandle;

use super::{
    ChvFacts,
    api::{VmState, api, info, put},
    events::{EVENTS, end_at_reset, has_reset},
    probe,
    render::{render, url},
};
use crate::{
    error::{Error, Kind},
    host::{Ended, Process, ProcessId},
    hypervisor::{
        ApiCall, CLOUD_HYPERVISOR, Hypervisor, LaunchPlan, Machine, Saved, Search, Site, able, http::HttpApi,
        kvm::why_not_nested,
    },
    plan::{Capabilities, NodePlan},
    spec::Capability,
};

/// Memory of the VMM itself: 11 MiB once a guest with one CPU answers, with room for more CPUs and disks.
const OVERHEAD: u64 = 32 << 20;

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
        Capabilities { emulated: false, can: able(CLOUD_HYPERVISOR, &self.lacks()), overhead: OVERHEAD }
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
            Ok(Arc::new(Connected { api, events, reset }) as Arc<dyn Machine>)
        })
    }
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
    /// Waits for the guest to reset itself.
    reset: Option<AbortHandle>,
}

impl Connected {
    fn told(&self, what: &'static str) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move { self.api.call(&put(what)).await.map(drop) })
    }
}

impl Machine for Connected {
    fn running(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(async { Ok(info(&self.api).await?.state == VmState::Running) })
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

    fn power_button(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told("vm.power-button")
    }

    fn quit(&self) -> BoxFuture<'_, Result<(), Error>> {
        self.told("vmm.shutdown")
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
