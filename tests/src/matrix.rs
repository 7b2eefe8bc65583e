//! What became of each case of the conformance suite on each backend.

use std::{collections::BTreeMap, fmt::Write, fs, time::SystemTime};

/// How a case has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The backend keeps to it.
    Passed,
    /// It does not.
    Failed,
    /// The backend has not declared that its machines can do this.
    Undeclared,
    /// Nobody has tried: the backend is not here, or the case was filtered out.
    NotRun,
}

impl Outcome {
    /// The longest of its words.
    const WIDTH: usize = "not declared".len();

    fn word(self) -> &'static str {
        match self {
            Self::Passed => "ok",
            Self::Failed => "FAILED",
            Self::Undeclared => "not declared",
            Self::NotRun => "not run",
        }
    }
}

/// One backend.
#[derive(Debug)]
struct Column {
    name: String,
    /// Its version and how it runs guests, or why it is not here.
    what: String,
    outcomes: BTreeMap<&'static str, Outcome>,
}

/// Cases by backend.
#[derive(Debug)]
pub struct Matrix {
    cases: Vec<&'static str>,
    columns: Vec<Column>,
}

impl Matrix {
    /// A matrix of these cases in which nothing has been run.
    pub fn new(cases: impl IntoIterator<Item = &'static str>) -> Self {
        Self { cases: cases.into_iter().collect(), columns: Vec::new() }
    }

    /// Adds a backend, with what is said of it.
    pub fn add(&mut self, backend: &str, what: String) {
        self.columns.push(Column { name: backend.to_owned(), what, outcomes: BTreeMap::new() });
    }

    /// Notes how a case has ended on a backend that was added; what is noted last counts.
    pub fn note(&mut self, case: &'static str, backend: &str, outcome: Outcome) {
        if let Some(column) = self.columns.iter_mut().find(|column| column.name == backend) {
            column.outcomes.insert(case, outcome);
        }
    }

    /// Whether any case was tried.
    pub fn was_run(&self) -> bool {
        let mut outcomes = self.columns.iter().flat_map(|column| column.outcomes.values());
        outcomes.any(|outcome| matches!(outcome, Outcome::Passed | Outcome::Failed))
    }

    /// As a table for a terminal.
    pub fn text(&self) -> String {
        let width = self.cases.iter().map(|case| case.len()).max().unwrap_or_default();
        let mut text: String =
            self.columns.iter().map(|column| format!("{}: {}\n", column.name, column.what)).collect();
        for (first, cells) in self.rows() {
            let cells = self.columns.iter().zip(cells);
            let cells: String = cells
                .map(|(column, cell)| format!("  {cell:<width$}", width = column.name.len().max(Outcome::WIDTH)))
                .collect();
            text += format!("{first:width$}{cells}").trim_end();
            text.push('\n');
        }
        text
    }

    /// As a page of the docs that says where and when it was made.
    pub fn page(&self, kernel: &str, date: &str) -> String {
        let mut page = format!(
            "# What every backend keeps to\n\n\
             One suite of cases is run against every backend (`tests/tests/conformance`). This page is what\n\
             `cargo vmtest lab --conformance --matrix docs/conformance.md` wrote on {date}, in the lab, on Linux {kernel}:\n\n"
        );
        for column in &self.columns {
            _ = writeln!(page, "- {}: {}", column.name, column.what);
        }
        page += "\nA case that a backend has not declared is one for which its machines lack something, which `requires(..)`\n\
                 of a test refuses before anything is made.\n\n";
        for (number, (first, cells)) in self.rows().enumerate() {
            _ = writeln!(page, "| {} | {} |", first.replace('_', " "), cells.join(" | "));
            if number == 0 {
                _ = writeln!(page, "|---{}|", "|---".repeat(self.columns.len()));
            }
        }
        page
    }

    /// The head and a row for each case.
    fn rows(&self) -> impl Iterator<Item = (&'static str, Vec<&str>)> {
        let head = ("", self.columns.iter().map(|column| &*column.name).collect());
        let row = |&case: &&'static str| {
            let outcome = |column: &Column| column.outcomes.get(case).copied().unwrap_or(Outcome::NotRun);
            (case, self.columns.iter().map(|column| outcome(column).word()).collect())
        };
        [head].into_iter().chain(self.cases.iter().map(row))
    }
}

/// The release of this host's kernel.
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// The day in UTC, as `2026-01-31`.
pub fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn matrix() -> Matrix {
        let mut matrix = Matrix::new(["a_machine_boots", "nothing_is_left"]);
        assert!(!matrix.was_run());
        matrix.add("qemu", "QEMU 7.2 with KVM".to_owned());
        matrix.add("firecracker", "not here: no firecracker on PATH".to_owned());
        matrix.note("a_machine_boots", "qemu", Outcome::Failed);
        matrix.note("a_machine_boots", "qemu", Outcome::Passed);
        matrix.note("nothing_is_left", "qemu", Outcome::Undeclared);
        matrix
    }

    #[test]
    fn what_was_not_run_is_told_from_what_is_not_declared() {
        assert!(matrix().was_run());
        expect![[r#"
            qemu: QEMU 7.2 with KVM
            firecracker: not here: no firecracker on PATH
                             qemu          firecracker
            a_machine_boots  ok            not run
            nothing_is_left  not declared  not run
        "#]]
        .assert_eq(&matrix().text());
    }

    #[test]
    fn a_page_says_where_and_when_it_was_made() {
        expect![[r##"
            # What every backend keeps to

            One suite of cases is run against every backend (`tests/tests/conformance`). This page is what
            `cargo vmtest lab --conformance --matrix docs/conformance.md` wrote on 2026-01-31, in the lab, on Linux 6.1.0:

            - qemu: QEMU 7.2 with KVM
            - firecracker: not here: no firecracker on PATH

            A case that a backend has not declared is one for which its machines lack something, which `requires(..)`
            of a test refuses before anything is made.

            |  | qemu | firecracker |
            |---|---|---|
            | a machine boots | ok | not run |
            | nothing is left | not declared | not run |
        "##]]
        .assert_eq(&matrix().page("6.1.0", "2026-01-31"));
    }

    #[test]
    fn a_day_is_a_day() {
        assert_eq!(today().len(), "2026-01-31".len());
        assert!(!kernel().is_empty());
    }
}
