//! Asks everything that is there why a test fails, before it is taken away.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::timeout};

use super::{guest_clock, member::Member, node::screenshot, power::State, provision::taps, run::Run};
use crate::{
    evidence::{Attempt, Sign, inside},
    net::rules,
    spec::Capability,
};

/// How much of the end of a console is told of a failure.
pub(crate) const CONSOLE_TAIL: usize = 8;

/// Asks guests, VMMs and the network beside each other, and writes what they say into the directory of the attempt. Whoever
/// does not answer in this time is left out. Does nothing where nothing is kept.
pub(crate) async fn collect(run: &Arc<Run>, limit: Duration) {
    let Some(attempt) = run.recorder.attempt() else { return };
    let members = run.members();
    let own_kernel = run.plan.capabilities.has(Capability::OwnKernel);
    // First, because what is asked passes there too.
    for member in &members {
        let ports: Vec<_> = taps(&member.plan).collect();
        if let Some(file) = run.capture.get().and_then(|capture| capture.file(&ports)) {
            attempt.write(&format!("nodes/{}/packets.pcapng", member.plan.name), &file);
        }
    }
    let nodes = join_all(members.iter().map(|member| async move {
        let guest = match member.state() {
            State::Running => {
                timeout(limit, guest(attempt, member, own_kernel)).await.unwrap_or_else(|_| Err("no answer".to_owned()))
            }
            state => Err(format!("it is {state}")),
        };
        if member.plan.screen
            && let Ok(Ok(shot)) = timeout(limit, screenshot(member)).await
        {
            attempt.write(&format!("nodes/{}/screen.png", member.plan.name), &shot);
        }
        // Of whom the guest itself says nothing, the VMM does.
        let vmm = vmm(member, limit, guest.err()).await;
        attempt.write_json(&format!("nodes/{}/vmm.json", member.plan.name), &vmm);
    }));
    let network = async {
        let state = timeout(limit, network(run)).await;
        attempt.write_json("network.json", &state.unwrap_or_else(|_| json!({ "error": "no answer" })));
    };
    tokio::join!(nodes, network);
}

/// Asks a guest, and looks at what its kernel has said beside the console.
async fn guest(attempt: &Attempt, member: &Member, own_kernel: bool) -> Result<(), String> {
    let ask = async {
        if own_kernel {
            // It may have booted again since it was asked, and its clock may have been slow.
            guest_clock::read(member).await?;
        }
        let exec = member.ssh.exec(inside::script(own_kernel).into_bytes()).await?;
        let status = exec.ended().await?;
        Ok::<_, crate::Error>(exec.output(status))
    };
    let output = ask.await.map_err(|e| e.to_string())?;
    let printed = output.stdout();
    let known = member.recorder.has_found(&member.plan.name);
    for (file, text) in inside::answers(&printed) {
        attempt.write(&format!("nodes/{}/{file}.txt", member.plan.name), text.as_bytes());
        // A kernel that says less on its console says it here; what the console has shown is known.
        if matches!(file, "dmesg" | "journal") && !known {
            let signs = text.lines().filter_map(|line| Some((Sign::of(line)?, line)));
            signs.for_each(|(sign, line)| member.recorder.find(&member.plan.name, sign, line));
        }
    }
    Ok(())
}

/// What is known of a VMM from outside, with the reason why its guest was not asked.
async fn vmm(member: &Member, limit: Duration, unreachable: Option<String>) -> Value {
    let runs = match member.machine() {
        Some(machine) => match timeout(limit, machine.running()).await {
            Ok(Ok(runs)) => json!(runs),
            Ok(Err(e)) => json!({ "error": e.to_string() }),
            Err(_) => json!({ "error": "the VMM's API does not answer" }),
        },
        None => Value::Null,
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
        "guest_not_asked": unreachable,
        "climbed": member.climbed(),
        "waits_for": member.waits_for().map(|rung| rung.to_string()),
        "virtual_cpus_run": runs,
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
