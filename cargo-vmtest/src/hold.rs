//! `cargo vmtest hold`, `resume` and `down`.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::inotify,
};
use vmtest::harness::control::{Client, Description, Request, RunState, runs};

use super::{output::line, target::find_run};

/// A teardown takes well under a second, and gives up after 15.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

/// Has a run keep its cluster when its body has ended.
pub(crate) fn hold(name: Option<&str>) -> Result<ExitCode, String> {
    let run = find_run(name)?;
    ask(&run, &Request::Hold)?;
    line(format_args!("run {} of `{}` will be held when its body has ended", run.run, run.test));
    Ok(ExitCode::SUCCESS)
}

/// Lets a run go on that is held.
pub(crate) fn resume(name: Option<&str>) -> Result<ExitCode, String> {
    let run = find_run(name)?;
    ask(&run, &Request::Resume)?;
    line(format_args!("run {} of `{}` goes on", run.run, run.test));
    Ok(ExitCode::SUCCESS)
}

/// Ends a run, or all of them, and waits until nothing of it is left.
pub(crate) fn down(name: Option<&str>, all: bool) -> Result<ExitCode, String> {
    let down = if all { runs().map_err(|e| e.to_string())?.runs } else { vec![find_run(name)?] };
    for run in &down {
        let gone = Removal::watch(&run.dir);
        let held = run.state == RunState::Held;
        ask(run, &Request::Down)?;
        let what = if held { "is not held any more" } else { "was ended, and its test has failed" };
        let left = if gone.wait() { "" } else { "; its teardown takes long, see what its test says" };
        line(format_args!("run {} of `{}` {what}{left}", run.run, run.test));
    }
    if down.is_empty() {
        line("no test runs now");
    }
    Ok(ExitCode::SUCCESS)
}

fn ask(run: &Description, request: &Request) -> Result<(), String> {
    let asked = Client::connect(&run.dir).and_then(|mut client| client.ask(request));
    asked.map(drop).map_err(|e| format!("run {}: {e}", run.run))
}

/// The end of a directory.
struct Removal {
    events: Option<std::os::fd::OwnedFd>,
}

impl Removal {
    /// Looked for from now on, so that one that comes soon is not missed.
    fn watch(dir: &Path) -> Self {
        let watch = || {
            let events = inotify::init(inotify::CreateFlags::CLOEXEC)?;
            inotify::add_watch(&events, dir, inotify::WatchFlags::DELETE_SELF)?;
            rustix::io::Result::Ok(events)
        };
        // Without a watch it is gone already.
        Self { events: watch().ok() }
    }

    /// Whether it has come in time.
    fn wait(self) -> bool {
        let Some(events) = self.events else { return true };
        let began = Instant::now();
        loop {
            let left = ENDS_WITHIN.saturating_sub(began.elapsed());
            let left = Timespec::try_from(left).unwrap_or_default();
            match poll(&mut [PollFd::new(&events, PollFlags::IN)], Some(&left)) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }
}
