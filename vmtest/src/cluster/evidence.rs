//! Asks everything that is there why a test fails, before it is taken away.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    task::spawn_blocking,
    time::{Instant, error::Elapsed, timeout, timeout_at},
};

use super::{guest_clock, member::Member, node::screenshot, power::State, provision::taps, run::Run};
use crate::{
    error::Error,
    evidence::{Attempt, Event, Sign, Unanswered, inside},
    guest::ssh::ExitStatus,
    net::rules,
    spec::Capability,
};

/// How much of the end of a console is told of a failure.
pub(crate) const CONSOLE_TAIL: usize = 8;

/// Asks guests, VMMs and the network beside each other, and writes what they say into the directory of the attempt. Whoever
/// does not answer in this time is left out: of the machines that run, these are named, with why. Does nothing where nothing
/// is kept.
pub(crate) async fn collect(run: &Arc<Run>, limit: Duration) -> Vec<Unanswered> {
    let Some(attempt) = run.recorder.attempt() else { return Vec::new() };
    let members = run.members();
    let own_kernel = run.plan.capabilities.has(Capability::OwnKernel);
    // First, because what is asked passes there too.
    for member in &members {
        let ports: Vec<_> = taps(&member.plan).collect();
        if let Some(file) = run.capture.get().and_then(|capture| capture.file(&ports)) {
            attempt.write(&format!("nodes/{}/packets.pcapng", member.plan.name), &file);
        }
    }
    let nodes = join_all(members.iter().map(|member| of_machine(attempt, member, own_kernel, limit)));
    let network = async {
        let state = timeout(limit, network(run)).await;
        attempt.write_json("network.json", &state.unwrap_or_else(|_| json!({ "error": "no answer" })));
    };
    let (silent, ()) = tokio::join!(nodes, network);
    silent.into_iter().flatten().collect()
}

/// Takes what a machine says, its guest, its VMM and its screen beside each other: one of them that hangs takes no time from
/// the others.
async fn of_machine(attempt: &Attempt, member: &Member, own_kernel: bool, limit: Duration) -> Option<Unanswered> {
    let name = &member.plan.name;
    let state = member.state();
    let guest = async {
        match state {
            State::Running => guest(attempt, member, own_kernel, limit).await,
            _ => Err(format!("it is {state}")),
        }
    };
    let screen = async {
        if member.plan.screen
            && let Ok(Ok(shot)) = timeout(limit, screenshot(member)).await
        {
            attempt.write(&format!("nodes/{name}/screen.png"), &shot);
        }
    };
    let (guest, mut vmm, ()) = tokio::join!(guest, vmm(member, limit), screen);
    // Of whom the guest itself says nothing, the VMM does.
    vmm["guest_not_asked"] = json!(guest.as_ref().err());
    attempt.write_json(&format!("nodes/{name}/vmm.json"), &vmm);
    let why = guest.err().filter(|_| matches!(state, State::Running))?;
    member.recorder.emit(&Event::Unanswered { node: name.clone(), why: why.clone() });
    Some(Unanswered { node: name.clone(), why })
}

/// Asks a guest, and looks at what its kernel has said beside the console. What it has answered in this time is kept, also
/// where it is not all.
async fn guest(attempt: &Attempt, member: &Member, own_kernel: bool, limit: Duration) -> Result<(), String> {
    let deadline = Instant::now() + limit;
    let within = format!("within {} s", limit.as_secs_f64());
    let ask = async {
        if own_kernel {
            // It may have booted again since it was asked, and its clock may have been slow.
            guest_clock::read(member).await?;
        }
        member.ssh.exec(inside::script(own_kernel).into_bytes()).await
    };
    let asked = timeout_at(deadline, ask).await;
    let exec = asked.map_err(|_| format!("it has not answered over SSH {within}"))?.map_err(|e| e.to_string())?;
    let ended = timeout_at(deadline, exec.ended()).await;
    keep_answers(attempt, member, &exec.output(ExitStatus::default()).stdout());
    match ended {
        Ok(ended) => ended.map(drop).map_err(|e| e.to_string()),
        Err(_) => Err(format!("it has not answered everything over SSH {within}")),
    }
}

fn keep_answers(attempt: &Attempt, member: &Member, printed: &str) {
    let known = member.recorder.has_found(&member.plan.name);
    for (file, text) in inside::answers(printed) {
        attempt.write(&format!("nodes/{}/{file}.txt", member.plan.name), text.as_bytes());
        // A kernel that says less on its console says it here; what the console has shown is known.
        if matches!(file, "dmesg" | "journal") && !known {
            let signs = text.lines().filter_map(|line| Some((Sign::of(line)?, line)));
            signs.for_each(|(sign, line)| member.recorder.find(&member.plan.name, sign, line));
        }
    }
}

/// The answer of a VMM, or why there is none.
fn said(answer: Result<Result<impl Into<Value>, Error>, Elapsed>) -> Value {
    match answer {
        Ok(Ok(said)) => said.into(),
        Ok(Err(e)) => json!({ "error": e.to_string() }),
        Err(_) => json!({ "error": "the VMM's API does not answer" }),
    }
}

/// What is known of a VMM from outside.
async fn vmm(member: &Member, limit: Duration) -> Value {
    let (runs, says) = match member.machine() {
        Some(machine) => tokio::join!(async { said(timeout(limit, machine.running()).await) }, async {
            said(timeout(limit, machine.described()).await)
        }),
        None => Default::default(),
    };
    let pid = member.process_id().map(|id| id.pid);
    let process = pid.and_then(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let fields = status.lines().filter_map(|line| line.split_once(':'));
        let wanted = ["State", "Threads", "VmRSS", "voluntary_ctxt_switches"];
        let kept = fields.filter(|(name, _)| wanted.contains(name));
        Some(kept.map(|(name, value)| (name.to_owned(), Value::from(value.trim()))).collect::<serde_json::Map<_, _>>())
    });
    json!({
        "state": member.state().to_string(),
        "climbed": member.climbed(),
        "waits_for": member.waits_for().map(|rung| rung.to_string()),
        "virtual_cpus_run": runs,
        "vmm_says": says,
        "pid": pid,
        "process": process,
    })
}

async fn network(run: &Run) -> Value {
    let Some(links) = run.links.get() else { return json!({ "error": "it was not made" }) };
    let state = links.state().await.unwrap_or_else(|e| json!({ "error": e.to_string() }));
    // On a thread of the engine, which is in the cluster's network.
    let rules = match spawn_blocking(rules).await {
        Ok(Ok(rules)) => rules,
        Ok(Err(e)) => json!({ "error": e.to_string() }),
        Err(e) => json!({ "error": e.to_string() }),
    };
    json!({ "links": state, "rules": rules })
}
