//! What many runs have in common: how long their phases take, and which tests fail now and then.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use rusqlite::{Connection, params};
use serde_json::{Value, json};
use vmtest::{
    evidence::{Ending, PastRun, Started},
    spec::TimedPhase,
};

/// The database, beside the lines from which it is filled.
const FILE: &str = "history.sqlite";
/// The form of its tables.
const FORMAT: i32 = 1;
/// Another `cargo vmtest` fills it.
const BUSY: Duration = Duration::from_secs(10);
/// What runs before these took says nothing about the tests of now, and the file stays small.
const KEPT_RUNS: u32 = 50_000;
/// What is taken of a failure to tell it from others.
const HASH: usize = 8;
/// What stands for the words of a run that has none.
const KILLED: &str = "it was killed: there is no verdict";

const TABLES: &str = "
    CREATE TABLE runs (
        id TEXT PRIMARY KEY, binary TEXT NOT NULL, test TEXT NOT NULL, backend TEXT NOT NULL, began REAL NOT NULL,
        verdict TEXT NOT NULL, took REAL NOT NULL, hash TEXT NOT NULL, words TEXT NOT NULL
    );
    CREATE TABLE phases (
        run TEXT NOT NULL REFERENCES runs (id) ON DELETE CASCADE, phase TEXT NOT NULL, seconds REAL NOT NULL,
        PRIMARY KEY (run, phase)
    ) WITHOUT ROWID;
";

/// The history of the tests whose artifacts are in this directory, with all that has happened until now.
#[derive(Debug)]
pub(super) struct History {
    database: Connection,
}

/// The figures of many runs.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    p50: f64,
    p95: f64,
    runs: usize,
}

/// A test that has passed and failed.
#[derive(Debug, PartialEq)]
struct Flaky {
    binary: String,
    test: String,
    runs: u32,
    /// The failures by what they have in common: hash, words, how many, when the last one began.
    failures: Vec<(String, String, u32, f64)>,
}

impl History {
    /// Opens it, and takes up what has happened since. Lines that were taken up and to which nobody adds any more are removed.
    pub(super) fn open(root: &Path) -> Result<Self, String> {
        let dir = PastRun::dir(root);
        let path = dir.join(FILE);
        let failed = |what: &str, why: &dyn std::fmt::Display| format!("cannot {what} {}: {why}", path.display());
        fs::create_dir_all(&dir).map_err(|e| failed("make the directory of", &e))?;
        let open = || -> rusqlite::Result<_> {
            let database = Connection::open(&path)?;
            database.busy_timeout(BUSY)?;
            database.pragma_update(None, "foreign_keys", true)?;
            let format: i32 = database.pragma_query_value(None, "user_version", |row| row.get(0))?;
            Ok((database, format))
        };
        let (mut database, format) =
            open().map_err(|e| format!("{}: remove the file to begin anew", failed("open", &e)))?;
        if format > FORMAT {
            return Err(format!("{} is of a newer version: remove it to begin anew", path.display()));
        }
        let runs = PastRun::all(root);
        fill(&mut database, format, &runs, &killed(root)).map_err(|e| failed("write", &e))?;
        PastRun::forget(root).map_err(|e| failed("remove what was taken up into", &e))?;
        Ok(Self { database })
    }

    /// As text for people.
    pub(super) fn text(&self) -> Result<String, String> {
        self.told().map_err(|e| format!("cannot read the history: {e}"))
    }

    /// For other programs.
    pub(super) fn json(&self) -> Result<Value, String> {
        self.as_json().map_err(|e| format!("cannot read the history: {e}"))
    }

    fn told(&self) -> rusqlite::Result<String> {
        let mut text = format!("{:<32}{:>11}{:>11}{:>7}\n", "phases", "p50", "p95", "runs");
        let mut last = String::new();
        for ((backend, phase), spread) in self.phases("backend")? {
            if backend != last {
                text += &format!("{backend}\n");
                last = backend;
            }
            let Spread { p50, p95, runs } = spread;
            text += &format!("  {phase:<30}{p50:>9.3} s{p95:>9.3} s{runs:>7}\n");
        }
        let flaky = self.flaky()?;
        if flaky.is_empty() {
            return Ok(text + "no test has both passed and failed\n");
        }
        text += "tests that have passed and failed\n";
        for Flaky { binary, test, runs, failures } in flaky {
            let failed: u32 = failures.iter().map(|(.., count, _)| count).sum();
            text += &format!("  {binary} {test}: {failed} of {runs} runs failed\n");
            for (hash, words, count, _) in failures {
                text += &format!("    {count} × {hash}  {}\n", words.lines().next().unwrap_or_default());
            }
        }
        Ok(text)
    }

    fn as_json(&self) -> rusqlite::Result<Value> {
        let runs: u32 = self.database.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
        let spread = |(phase, Spread { p50, p95, runs }): (TimedPhase, Spread)| json!({ "phase": phase, "p50": p50, "p95": p95, "runs": runs });
        let by = |column: &str| -> rusqlite::Result<BTreeMap<String, Vec<Value>>> {
            let mut grouped: BTreeMap<String, Vec<Value>> = BTreeMap::new();
            for ((of, phase), figures) in self.phases(column)? {
                grouped.entry(of).or_default().push(spread((phase, figures)));
            }
            Ok(grouped)
        };
        let flaky = self.flaky()?.into_iter().map(|Flaky { binary, test, runs, failures }| {
            let failures = failures.into_iter().map(
                |(hash, words, count, last)| json!({ "signature": hash, "words": words, "runs": count, "last": last }),
            );
            json!({ "binary": binary, "test": test, "runs": runs, "failures": failures.collect::<Vec<_>>() })
        });
        let flaky: Vec<_> = flaky.collect();
        Ok(json!({ "runs": runs, "backends": by("backend")?, "tests": by("binary || ' ' || test")?, "flaky": flaky }))
    }

    /// How long each phase takes, of each value of this expression over a run.
    fn phases(&self, by: &str) -> rusqlite::Result<BTreeMap<(String, TimedPhase), Spread>> {
        let query = format!(
            "SELECT {by}, phase, seconds FROM phases JOIN runs ON run = id WHERE backend != '' ORDER BY seconds"
        );
        let mut all: BTreeMap<(String, TimedPhase), Vec<f64>> = BTreeMap::new();
        let mut query = self.database.prepare(&query)?;
        let mut rows = query.query([])?;
        while let Some(row) = rows.next()? {
            let (of, phase): (String, String) = (row.get(0)?, row.get(1)?);
            if let Some(phase) = TimedPhase::of(&phase) {
                all.entry((of, phase)).or_default().push(row.get(2)?);
            }
        }
        Ok(all.into_iter().map(|(of, sorted)| (of, spread(&sorted))).collect())
    }

    fn flaky(&self) -> rusqlite::Result<Vec<Flaky>> {
        let mut tests = self.database.prepare(
            "SELECT binary, test, count(*) FROM runs WHERE verdict != 'skipped' GROUP BY binary, test
             HAVING sum(verdict = 'passed') > 0 AND sum(verdict != 'passed') > 0 ORDER BY binary, test",
        )?;
        let mut failures = self.database.prepare(
            "SELECT hash, max(words), count(*), max(began) FROM runs
             WHERE binary = ? AND test = ? AND verdict NOT IN ('passed', 'skipped') GROUP BY hash ORDER BY count(*) DESC, hash",
        )?;
        let tests = tests.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let flaky = tests.map(|test| {
            let (binary, test, runs): (String, String, u32) = test?;
            let of_row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            let failures = failures.query_map([&binary, &test], of_row)?.collect::<Result<_, _>>()?;
            Ok(Flaky { binary, test, runs, failures })
        });
        flaky.collect()
    }
}

fn fill(
    database: &mut Connection,
    format: i32,
    runs: &[PastRun],
    killed: &[(String, Started)],
) -> rusqlite::Result<()> {
    let changes = database.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    // Looked at again: another process may have made them meanwhile.
    let made: i32 = changes.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if format < FORMAT && made < FORMAT {
        changes.execute_batch(TABLES)?;
        changes.pragma_update(None, "user_version", FORMAT)?;
    }
    {
        let mut run = changes.prepare("INSERT OR IGNORE INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")?;
        let mut phase = changes.prepare("INSERT INTO phases VALUES (?, ?, ?)")?;
        for PastRun { id, test, binary, backend, began, verdict, took, phases, signature, .. } in runs {
            let hash = hash(signature);
            if run.execute(params![id, binary, test, short(backend), began, verdict, took, hash, signature])? == 0 {
                continue;
            }
            for (name, seconds) in phases {
                phase.execute(params![id, name.to_string(), seconds])?;
            }
        }
        for (id, started) in killed {
            let Started { binary, test, unix_time, .. } = started;
            let word = Ending::NoVerdict.word();
            run.execute(params![id, binary, test, "", unix_time, word, 0.0, hash(KILLED), KILLED])?;
        }
    }
    changes
        .execute("DELETE FROM runs WHERE id NOT IN (SELECT id FROM runs ORDER BY began DESC LIMIT ?)", [KEPT_RUNS])?;
    changes.commit()
}

/// A backend without why it is not another one, which says nothing about how fast it is.
fn short(backend: &str) -> &str {
    backend.split(" (not on ").next().unwrap_or(backend)
}

fn hash(words: &str) -> String {
    if words.is_empty() { String::new() } else { blake3::hash(words.as_bytes()).to_hex()[..HASH].to_owned() }
}

/// The attempts that have no verdict and whose process is gone.
fn killed(root: &Path) -> Vec<(String, Started)> {
    let below =
        |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    let attempts = below(root).into_iter().flat_map(|test| below(&test));
    let without =
        attempts.filter(|attempt| attempt.join("started.json").exists() && !attempt.join("verdict.json").exists());
    let killed = without.filter_map(|attempt| {
        let started = Started::read(&attempt).ok()?;
        let runs = Path::new("/proc").join(started.pid.to_string()).exists();
        let id = attempt.file_name()?.to_string_lossy().into_owned();
        (!runs).then_some((id, started))
    });
    killed.collect()
}

/// Of values in order: the first that at least so many are not above.
fn spread(sorted: &[f64]) -> Spread {
    let at = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).clamp(1, sorted.len()) - 1];
    Spread { p50: at(50), p95: at(95), runs: sorted.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(root: &Path, id: &str, verdict: &str, boot: f64, signature: &str) {
        let run = json!({
            "id": id, "test": "a::flaky", "binary": "b", "backend": "QEMU 7.2 (not on x: y)", "began": boot, "verdict": verdict,
            "took": 1.0, "phases": {"boot": boot}, "signature": signature,
        });
        let dir = PastRun::dir(root);
        fs::create_dir_all(&dir).unwrap();
        let lines = fs::read_to_string(dir.join("1000.jsonl")).unwrap_or_default();
        fs::write(dir.join("1000.jsonl"), format!("{lines}{run}\n")).unwrap();
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let of = |count: u32| spread(&(1..=count).map(f64::from).collect::<Vec<_>>());
        assert_eq!((of(1).p50, of(1).p95), (1.0, 1.0));
        assert_eq!((of(4).p50, of(4).p95), (2.0, 4.0));
        assert_eq!((of(100).p50, of(100).p95), (50.0, 95.0));
    }

    #[test]
    fn runs_are_taken_up_once() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=18 {
            add(dir.path(), &n.to_string(), "passed", f64::from(n), "");
        }
        add(dir.path(), "19", "failed", 19.0, "no answer after <time>");
        drop(History::open(dir.path()).unwrap());
        assert!(PastRun::all(dir.path()).is_empty(), "what is of a day that is over is removed");
        add(dir.path(), "19", "failed", 19.0, "no answer after <time>");
        add(dir.path(), "20", "failed", 20.0, "another");
        add(dir.path(), "21", "skipped", 0.5, "no KVM");
        let history = History::open(dir.path()).unwrap();
        let text = history.text().unwrap();
        let hash = hash("no answer after <time>");
        for part in [
            "QEMU 7.2\n  boot                             10.000 s   19.000 s     21\n",
            "  b a::flaky: 2 of 20 runs failed\n",
            &format!("    1 × {hash}  no answer after <time>\n"),
        ] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        let json = history.json().unwrap();
        assert_eq!((&json["runs"], &json["tests"]["b a::flaky"][0]["p95"]), (&21.into(), &19.0.into()));
        assert_eq!(json["flaky"][0]["failures"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn a_file_that_is_no_database_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(PastRun::dir(dir.path())).unwrap();
        fs::write(PastRun::dir(dir.path()).join(FILE), "x".repeat(5000)).unwrap();
        let error = History::open(dir.path()).unwrap_err();
        assert!(error.contains("history.sqlite") && error.contains("remove the file to begin anew"), "{error}");
    }
}
