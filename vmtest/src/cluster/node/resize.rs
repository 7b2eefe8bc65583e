//! Giving a machine memory and CPUs while it runs, and taking them back.

use std::time::Duration;

use bytesize::ByteSize;
use tokio::time::{Instant, sleep};

use super::{Node, power::api};
use crate::{
    cluster::{ladder::succeeds, member::Member, power::Action, run::Run},
    error::{Error, Kind},
    hypervisor::Machine,
};

/// A guest gives and takes some 100 MiB in this time under emulation; no VMM says when it is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A guest that gives memory back is never still for longer than this unless it has none to give. Scaled.
const STILL_FOR: Duration = Duration::from_secs(5);
/// A CPU comes and goes in a tenth of a second under emulation. Scaled.
const CPUS_WITHIN: Duration = Duration::from_secs(10);

/// Sizes. What a machine can be given is declared: `max_cpus` and `max_memory` on the node.
///
/// ```no_run
/// use vmtest::prelude::*;
///
/// #[vm_test]
/// async fn grows(#[node(max_cpus = 2, memory = "256MiB", max_memory = "1GiB")] node: Node) -> Result {
///     node.set_cpus(2).await?;
///     node.set_memory(1 << 30).await?;
///     assert_eq!(node.sh("nproc").await?.stdout(), "2");
///     Ok(())
/// }
/// ```
impl Node {
    /// Gives the machine so much memory in bytes, in whole MiB, or takes it away. Returns when the guest has so much: `MemTotal`
    /// in its `/proc/meminfo` differs by as much. It may be less than at its boot, and at most `max_memory`. A machine that
    /// reboots or is started again has what it is declared with.
    ///
    /// A guest gives what it does not need. One that needs what it shall give has its processes killed before.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine without `max_memory`, that does not run, or for more than that; [`Kind::Timeout`] when the
    /// guest gives no more back: it still has what it has then.
    pub async fn set_memory(&self, bytes: u64) -> Result<(), Error> {
        self.change(Action::Resize, true, move |run, member| async move {
            let Some(max) = member.plan.max_memory else {
                return Err(Error::new(Kind::Spec, "its memory is fixed: declare `max_memory = \"1GiB\"` on the node"));
            };
            let bytes = bytes >> 20 << 20;
            if bytes > max || bytes == 0 {
                let (bytes, max) = (size(bytes), size(max));
                return Err(Error::new(Kind::Spec, format!("it can have up to {max} of memory, not {bytes}")));
            }
            let machine = api(&member)?;
            member
                .during_boot(async {
                    machine.set_memory(bytes).await?;
                    has_memory(&run, &*machine, bytes).await
                })
                .await
        })
        .await
    }

    /// Gives the machine so many virtual CPUs, or takes them away. Returns when the guest uses so many. Those that are new are
    /// plugged in; those that go are switched off by the guest, and on again when they come back. It has at least those
    /// with which it boots, and at most `max_cpus`. A machine that reboots or is started again has what it is declared with.
    ///
    /// # Errors
    /// [`Kind::Spec`] for a machine without `max_cpus`, that does not run, or for another number; [`Kind::Connection`] when the
    /// guest does not do its part.
    pub async fn set_cpus(&self, count: u32) -> Result<(), Error> {
        self.change(Action::Resize, true, move |run, member| async move {
            let least = member.plan.cpus;
            let Some(max) = member.plan.max_cpus else {
                return Err(Error::new(Kind::Spec, "its CPUs are fixed: declare `max_cpus = 4` on the node"));
            };
            if !(least..=max).contains(&count) {
                return Err(Error::new(Kind::Spec, format!("it can have {least} to {max} CPUs, not {count}")));
            }
            let machine = api(&member)?;
            let script = uses_cpus(count, run.plan.scaled(CPUS_WITHIN));
            member
                .during_boot(async {
                    machine.add_cpus(count).await?;
                    succeeds(&member, &script, "the guest does not use the CPUs that it was given").await
                })
                .await
        })
        .await
    }
}

/// Waits until a machine that has just booted has the memory with which it is declared.
///
/// # Errors
/// What its VMM refused; [`Kind::Timeout`] when the guest gives nothing back.
pub(in crate::cluster) async fn has_first_memory(run: &Run, member: &Member) -> Result<(), Error> {
    match member.plan.max_memory {
        None => Ok(()),
        Some(_) => has_memory(run, &*api(member)?, member.plan.memory).await,
    }
}

async fn has_memory(run: &Run, machine: &dyn Machine, bytes: u64) -> Result<(), Error> {
    let still_for = run.plan.scaled(STILL_FOR);
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let has = machine.memory().await?;
        if has == bytes {
            return Ok(());
        }
        if has != last {
            (last, since) = (has, Instant::now());
        } else if since.elapsed() > still_for {
            let message = format!("the guest has {} of memory and does not come to {}", size(has), size(bytes));
            return Err(Error::new(Kind::Timeout, format!("{message}: it needs the rest, or lacks `virtio_balloon`")));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// A script that uses so many of the CPUs that are there, and succeeds once they are so many.
fn uses_cpus(count: u32, within: Duration) -> String {
    let tries = within.as_millis() / 50;
    format!(
        r#"tries={tries}
while [ "$tries" -gt 0 ]; do
    for online in /sys/devices/system/cpu/cpu[0-9]*/online; do
        [ -e "$online" ] || continue
        number=${{online%/online}}
        [ "${{number##*cpu}}" -lt {count} ] && wanted=1 || wanted=0
        [ "$(cat "$online")" = "$wanted" ] || echo "$wanted" >"$online"
    done
    has=$(grep -c ^processor /proc/cpuinfo)
    [ "$has" = {count} ] && exit
    tries=$((tries - 1))
    sleep 0.05
done
echo "it uses $has instead of {count}"
exit 1
"#
    )
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}
