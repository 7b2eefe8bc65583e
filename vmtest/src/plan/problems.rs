//! What keeps a cluster from being planned.

use crate::error::{Error, Kind, Phase};

/// Every problem found, so that all of them are shown at once.
#[derive(Default)]
pub(super) struct Problems {
    list: Vec<String>,
    spec: bool,
}

impl Problems {
    pub(super) fn spec(&mut self, problem: String) {
        self.spec = true;
        self.missing(problem);
    }

    pub(super) fn missing(&mut self, problem: String) {
        self.list.push(problem);
    }

    pub(super) fn host_lacks(&mut self, problems: Vec<String>) {
        self.list.extend(problems);
    }

    pub(super) fn take<T>(&mut self, result: Result<T, String>) -> Option<T> {
        result.map_err(|problem| self.missing(problem)).ok()
    }

    pub(super) fn into_result(self, name: &str) -> Result<(), Error> {
        let kind = if self.spec { Kind::Spec } else { Kind::Missing };
        let message = match self.list.as_slice() {
            [] => return Ok(()),
            [one] => format!("`{name}` cannot run: {one}"),
            many => format!("`{name}` cannot run, for {} reasons:\n  - {}", many.len(), many.join("\n  - ")),
        };
        Err(Error::new(kind, message).in_phase(Phase::Plan))
    }
}
