//! How the demonstration looks: live on a terminal, plain lines elsewhere, JSON lines for programs.

use std::{
    collections::BTreeMap,
    fmt::Display,
    io::{IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use vmtest::evidence::{Event, Rung};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// Shows events as they come, and keeps them for the table at the end.
pub(crate) struct Screen {
    json: bool,
    state: Mutex<State>,
    body: Mutex<Option<(Instant, Duration)>>,
}

struct State {
    live: Option<MultiProgress>,
    image: Option<ProgressBar>,
    image_step: Option<String>,
    bars: BTreeMap<String, ProgressBar>,
    rungs: Vec<(String, Rung, Duration)>,
    names: Vec<String>,
    network: Duration,
    ready: Duration,
    torn_down: Option<(Duration, Vec<String>)>,
}

impl Screen {
    pub(crate) fn new(names: &[&str], json: bool) -> Self {
        let live = (!json && std::io::stdout().is_terminal()).then(MultiProgress::new);
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let state = State {
            live,
            image: None,
            image_step: None,
            bars: BTreeMap::new(),
            rungs: Vec::new(),
            names,
            network: Duration::ZERO,
            ready: Duration::ZERO,
            torn_down: None,
        };
        Self { json, state: Mutex::new(state), body: Mutex::default() }
    }

    pub(crate) fn show(&self, event: &Event) {
        if self.json {
            print(serde_json::to_string(event).unwrap_or_default());
        }
        let mut state = self.lock();
        match event {
            Event::Image { what, percent } | Event::Fixture { what, percent, .. } => {
                self.image(&mut state, what, *percent)
            }
            Event::Waiting(waiting) => self.line(&state, &waiting.to_string()),
            Event::Planned { run, nodes, backend } => {
                if let Some(bar) = state.image.take() {
                    bar.finish_and_clear();
                }
                self.line(&state, &format!("run {run}: {} on {backend}", nodes.join(", ")));
            }
            Event::NetworkUp { after } => {
                state.network = *after;
                self.line(&state, &format!("{:>7.2} s  bridge and taps are up", after.as_secs_f64()));
                let names = state.names.clone();
                for name in names {
                    if let Some(bar) = state.live.as_ref().map(|live| live.add(ProgressBar::new_spinner())) {
                        bar.set_style(style("{spinner} {prefix:<8} {msg}"));
                        bar.set_prefix(name.clone());
                        bar.enable_steady_tick(TICK);
                        state.bars.insert(name, bar);
                    }
                }
            }
            Event::Reached { node, rung, after } => {
                state.rungs.push((node.clone(), *rung, *after));
                match state.bars.get(node) {
                    Some(bar) => bar.set_message(format!("{rung} ({:.2} s)", after.as_secs_f64())),
                    None => self.line(&state, &format!("{:>7.2} s  {node:<8} {rung}", after.as_secs_f64())),
                }
            }
            Event::Ready { after } => {
                state.ready = *after;
                state.bars.values().for_each(ProgressBar::finish_and_clear);
                if state.live.take().is_some() {
                    for name in &state.names {
                        let last = state.rungs.iter().rfind(|(node, ..)| node == name);
                        let last = last.map_or(Duration::ZERO, |(_, _, at)| *at);
                        self.line(&state, &format!("{:>7.2} s  {name} answers", last.as_secs_f64()));
                    }
                }
                self.line(&state, &format!("{:>7.2} s  all machines answer", after.as_secs_f64()));
                *self.body.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), Duration::ZERO));
            }
            Event::TornDown { took, left } => state.torn_down = Some((*took, left.clone())),
            _ => {}
        }
    }

    /// A line of the body.
    pub(crate) fn say(&self, line: &str) {
        let state = self.lock();
        self.line(&state, line);
    }

    /// The body has done its work.
    pub(crate) fn body_done(&self) {
        if let Some((began, took)) = self.body.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            *took = began.elapsed();
        }
    }

    /// The table of phases, and what was left.
    pub(crate) fn finish(&self) {
        let state = self.lock();
        let Some((teardown, left)) = state.torn_down.clone().filter(|_| !self.json) else { return };
        print("");
        print(format_args!("{:<20}{}", "", state.names.iter().map(|name| format!("{name:>10}")).collect::<String>()));
        let mut before = BTreeMap::new();
        for rung in Rung::ALL {
            let times = state.names.iter().map(|name| {
                let at = state.rungs.iter().find(|(node, r, _)| node == name && *r == rung).map(|(_, _, at)| *at);
                let took = at.map(|at| at.saturating_sub(before.insert(name.clone(), at).unwrap_or(state.network)));
                took.map_or_else(|| format!("{:>10}", "-"), |took| format!("{:>8.2} s", took.as_secs_f64()))
            });
            print(format_args!("{:<20}{}", rung.to_string(), times.collect::<String>()));
        }
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner).map_or(Duration::ZERO, |(_, took)| took);
        print("");
        for (phase, took) in [
            ("network", state.network),
            ("boot", state.ready.saturating_sub(state.network)),
            ("body", body),
            ("teardown", teardown),
        ] {
            print(format_args!("{phase:<20}{:>8.2} s", took.as_secs_f64()));
        }
        print("");
        if left.is_empty() {
            print("nothing was left on this host");
        } else {
            print(format_args!("left on this host:\n  - {}", left.join("\n  - ")));
        }
    }

    fn image(&self, state: &mut State, what: &str, percent: u64) {
        let Some(live) = &state.live else {
            if state.image_step.replace(what.to_owned()).as_deref() != Some(what) {
                self.line(state, &format!("image: {what}"));
            }
            return;
        };
        let bar = state.image.get_or_insert_with(|| {
            let bar = live.add(ProgressBar::new(100));
            bar.set_style(style("image [{bar:30}] {msg}"));
            bar
        });
        bar.set_position(percent);
        bar.set_message(what.to_owned());
    }

    fn line(&self, state: &State, line: &str) {
        match &state.live {
            Some(live) => live.suspend(|| print(line)),
            None if self.json => {}
            None => print(line),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Prints a line; whoever closed the pipe does not want to read it.
fn print(line: impl Display) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}
