//! The readiness ladder: from a running VMM to an authenticated command.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{guest_clock, member::Member, node::has_first_memory, run::Run};
use crate::{
    error::{Error, Kind},
    evidence::{Event, Rung},
    guest::mounts,
    hypervisor::LaunchPlan,
    plan::SSH_PORT,
    spec::{Capability, Fake},
};

/// A fresh connect this often: the kernel would repeat a lost SYN only after a second.
const KNOCK_EVERY: Duration = Duration::from_millis(20);
/// A machine that takes long to boot is slow to answer too, and each knock takes time of it: fifty in a second kept one in the
/// lab from ever accepting one. So they come less often the longer it takes, which costs a hundredth of the boot.
const KNOCKS_IN_A_BOOT: u32 = 100;
/// A SYN that went nowhere is given up; by then fifty others are under way.
const KNOCK_GIVES_UP: Duration = Duration::from_secs(1);
/// What a service needs to come up is seldom less, and each probe is a process in the guest.
const PROBE_EVERY: Duration = Duration::from_millis(250);
/// An SSH server that accepted and then said nothing is asked again; under emulation the banner takes 50 ms.
const BANNER_WITHIN: Duration = Duration::from_secs(2);
/// Where the boot has taken long, a server has this part of that time, for the same reason.
const BANNER_WITHIN_PART: u32 = 4;

/// Climbs all rungs that are left for this machine. Cancel-safe.
///
/// # Errors
/// How the machine ended, when it did; what the VMM's API refused.
pub(super) async fn climb(run: &Run, member: &Member, plan: &LaunchPlan) -> Result<(), Error> {
    member.during_boot(rungs(run, member, plan)).await
}

async fn rungs(run: &Run, member: &Member, plan: &LaunchPlan) -> Result<(), Error> {
    let reached = |rung| {
        let after = run.elapsed();
        member.reached(rung, after);
        run.emit(&Event::Reached { node: member.plan.name.clone(), rung, after });
    };
    let began = Instant::now();
    reached(Rung::VmmAlive);
    let vmm = member.process_id().ok_or_else(|| Error::new(Kind::Host, "the machine has no VMM"))?;
    let machine = run.hypervisor.connect(plan, &run.site(member)?, &vmm).await?;
    // Before anything is asked of it: a guest may end at its first instruction, and the machine knows how.
    member.set_machine(machine.clone());
    if !machine.running().await? {
        return Err(Error::new(Kind::Host, "the VMM has not started its virtual CPUs"));
    }
    reached(Rung::ApiAnswers);
    let address = SocketAddr::new(IpAddr::V4(member.plan.first_interface().ip), SSH_PORT);
    if !plan.goes_on {
        tokio::select! {
            () = member.console.spoke() => {}
            // What firmware starts says what it likes, and where it likes.
            () = network_answers(address, began), if member.plan.firmware.is_some() => {}
        }
    }
    reached(Rung::KernelSpeaks);
    network_answers(address, began).await;
    reached(Rung::NetworkAnswers);
    let banner_within = || BANNER_WITHIN.max(began.elapsed() / BANNER_WITHIN_PART);
    while member.ssh.banner(banner_within()).await.is_err() {
        // A refused connect says nothing about when the server will listen, so there is no event to wait for.
        sleep(knock_after(began)).await;
    }
    reached(Rung::SshBanner);
    // The first command says something too; a machine without a kernel of its own has the clock of its host.
    let own_kernel = run.plan.capabilities.has(Capability::OwnKernel);
    if !own_kernel || !guest_clock::read(member).await? {
        succeeds(member, "true", "`true` failed over SSH").await?;
    }
    // A scripted machine has no files.
    if !member.plan.fake.as_ref().is_some_and(Fake::is_scripted)
        && let Some(script) = mounts::check(member.plan.mounted(), own_kernel)
    {
        succeeds(member, &script, "a disk is not where it was asked for").await?;
    }
    if !plan.goes_on {
        has_first_memory(run, member).await?;
    }
    reached(Rung::SshAuthenticated);
    if let Some(command) = member.plan.ready.as_ref().filter(|_| !plan.goes_on) {
        probed(member, command).await;
    }
    if member.plan.ready.is_some() {
        reached(Rung::Probe);
    }
    Ok(())
}

/// Resolves when the machine's own probe has succeeded. How it failed last is kept for whoever has waited too long.
async fn probed(member: &Member, command: &str) {
    loop {
        // A server that does not answer at this moment answers at the next; a machine that ends is seen elsewhere.
        match succeeds(member, command, &format!("`{command}` failed")).await {
            Ok(()) => return member.set_refused(None),
            Err(e) => member.set_refused(Some(e.to_string())),
        }
        sleep(PROBE_EVERY).await;
    }
}

pub(super) async fn succeeds(member: &Member, script: &str, otherwise: &str) -> Result<(), Error> {
    let exec = member.ssh.exec(script.as_bytes().to_vec()).await?;
    let status = exec.ended().await?;
    if status.code == Some(0) {
        return Ok(());
    }
    let output = exec.output(status);
    let why = [output.stdout(), output.stderr()].concat();
    Err(Error::new(Kind::Connection, format!("{otherwise}: {why}")))
}

/// How long to wait with the next knock.
fn knock_after(booting_since: Instant) -> Duration {
    KNOCK_EVERY.max(booting_since.elapsed() / KNOCKS_IN_A_BOOT)
}

/// Resolves when the address accepts or refuses a connect: either proves that packets go there and back.
async fn network_answers(address: SocketAddr, booting_since: Instant) {
    let mut knocks = FuturesUnordered::new();
    loop {
        knocks.push(timeout(KNOCK_GIVES_UP, TcpStream::connect(address)));
        let mut next = pin!(sleep(knock_after(booting_since)));
        loop {
            tokio::select! {
                () = &mut next => break,
                Some(knock) = knocks.next() => match knock {
                    Ok(Err(e)) if e.kind() != io::ErrorKind::ConnectionRefused => {}
                    // Given up: what it asked is still being asked by others.
                    Err(_) => {}
                    Ok(_) => return,
                },
            }
        }
    }
}
