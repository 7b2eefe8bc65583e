//! Between the end of a body and the teardown: what is kept and said of a run.

use std::{
    fs,
    sync::{Arc, mpsc},
    time::Duration,
};

use tokio::runtime::Runtime;

use super::{super::end::End, Run};
use crate::{
    cluster::{CONSOLE_TAIL, Member, collect},
    evidence::{Event, LastLines, Unanswered},
    hypervisor::{CONSOLE, VMM_LOG},
};

/// A guest answers in milliseconds, under emulation in seconds; whoever waits for the verdict waits for this too.
const TAKEN_WITHIN: Duration = Duration::from_secs(10);
/// The same after a signal: a runner kills the process ten seconds later, and the teardown needs some of these.
const TAKEN_AFTER_A_SIGNAL_WITHIN: Duration = Duration::from_secs(2);

/// How much of a VMM's log is looked at, in bytes, where its machine has said nothing.
const VMM_LOG_TAIL: usize = 4096;

/// Fails a run that has passed otherwise if one of its phases took longer than it may.
pub(super) fn over_budget(run: &Run, end: End) -> End {
    match (end, run.recorder.over_budget(run.plan.timeout_scale)) {
        (End::Passed, Some(over)) => End::Failed(over),
        (end, _) => end,
    }
}

/// Looks for what the guests have reported, and takes all that says why a test fails, while its machines are there. The
/// error is the verdict of a run that a signal has ended.
pub(super) fn take(run: &Arc<Run>, engine: &Runtime, end: Result<End, String>) -> Result<End, String> {
    if !matches!(end, Ok(End::Passed)) {
        // Before a long console is read: what failed a moment ago is said.
        run.recorder.note_awaited();
    }
    let members = run.members();
    for member in &members {
        // What was printed a moment ago may not have been read.
        member.console.catch_up(&member.dir.join(CONSOLE));
        if let Some(attempt) = run.recorder.attempt() {
            attempt.keep_log(&member.plan.name, &member.dir.join(VMM_LOG));
        }
    }
    run.recorder.body_ended(run.clock.elapsed());
    let end = end.map(|end| over_budget(run, end));
    let end = end.map(|end| match (end, run.recorder.complaint()) {
        (End::Passed, Some(complaint)) => End::Failed(complaint),
        (end, _) => end,
    });
    let failure = end.as_ref().map_or_else(|verdict| Some(verdict.as_str()), End::words).map(str::to_owned);
    run.emit(&Event::BodyEnded { failure: failure.clone() });
    let Some(words) = failure else { return end };

    run.recorder.note_awaited();
    let limit = if end.is_ok() { TAKEN_WITHIN } else { TAKEN_AFTER_A_SIGNAL_WITHIN };
    let (tell, taken) = mpsc::channel();
    let of_run = run.clone();
    // On the engine, because a body may block all other threads.
    let collecting = engine.spawn(async move {
        _ = tell.send(collect(&of_run, limit).await);
    });
    // It bounds itself; should it hang in spite of that, the teardown does not wait for it.
    let unanswered = taken.recv_timeout(limit * 2).unwrap_or_else(|_| {
        collecting.abort();
        let why = format!("taking evidence has hung for {} s", (limit * 2).as_secs());
        members.iter().map(|member| Unanswered { node: member.plan.name.clone(), why: why.clone() }).collect()
    });
    let consoles: Vec<_> = members.iter().map(|member| last_lines(member)).collect();
    let printed = matches!(end, Ok(End::Panicked(_)));
    let text = run.recorder.failed(&words, printed, &consoles, &unanswered);
    match end {
        Ok(End::Panicked(payload)) => {
            eprintln!("{text}");
            Ok(End::Panicked(payload))
        }
        Ok(_) => Ok(End::Failed(text)),
        Err(_) => Err(text),
    }
}

/// The last that a machine has said, else its VMM.
fn last_lines(member: &Member) -> LastLines {
    member.console.look(&member.dir.join(CONSOLE));
    let console = member.console.tail(CONSOLE_TAIL);
    if !console.is_empty() {
        return LastLines { node: member.plan.name.clone(), of: "the console", lines: console };
    }
    let log = fs::read(member.dir.join(VMM_LOG)).unwrap_or_default();
    let log = String::from_utf8_lossy(&log[log.len().saturating_sub(VMM_LOG_TAIL)..]).into_owned();
    let lines = log.lines().map(|line| line.trim_end().to_owned()).collect();
    LastLines { node: member.plan.name.clone(), of: "what the VMM has printed", lines }
}
