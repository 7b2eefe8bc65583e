//! Shows that something is being built, while a test waits for it.

use std::{cell::RefCell, io::IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::evidence::{Event, Recorder};

/// Shows a build to the observer, else on the terminal, else as a line for each step.
pub(super) struct BuildProgress<'a> {
    recorder: Option<&'a Recorder>,
    event: &'a dyn Fn(&str, u64) -> Event,
    bar: ProgressBar,
    step: RefCell<String>,
}

impl<'a> BuildProgress<'a> {
    /// `event` is what is taken down, where somebody does that.
    pub(super) fn new(recorder: Option<&'a Recorder>, name: String, event: &'a dyn Fn(&str, u64) -> Event) -> Self {
        // The bar writes to the terminal itself, so it shows in spite of the capture of libtest. It is hidden until its
        // first step, which comes only when something must be built.
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(format!("vmtest: {name}"));
        Self { recorder, event, bar, step: RefCell::default() }
    }
}

impl vmtest_images::Progress for BuildProgress<'_> {
    fn step(&self, percent: u64, what: &str) {
        if let Some(recorder) = self.recorder {
            recorder.emit(&(self.event)(what, percent));
            if recorder.is_observed() {
                return;
            }
        }
        let before = self.step.replace(what.to_owned());
        match std::io::stderr().is_terminal() {
            true if before.is_empty() => self.bar.set_draw_target(ProgressDrawTarget::stderr()),
            false if before != what => eprintln!("{}: {what}", self.bar.prefix()),
            _ => {}
        }
        self.bar.set_message(what.to_owned());
        self.bar.set_position(percent);
    }
}

impl Drop for BuildProgress<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
