//! The first thing that is written of an attempt: what was run, where, and with which settings.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    thread::available_parallelism,
    time::SystemTime,
};

use rustix::system::{sysinfo, uname};
use serde::{Deserialize, Serialize};

use super::{Kept, again, attempt::STARTED, place, runner::Runner};

/// The form in which attempts are written down. Another one may mean other things by the same names.
const FORMAT: u32 = 1;

/// What was run, where, and with which settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Started {
    /// The form of everything in this directory.
    pub format: u32,
    /// The version of this library.
    pub vmtest: String,
    /// The test's name, or that of the cluster of a test that asks for it in code.
    pub test: String,
    /// The name by which a runner knows the test.
    pub runner_name: String,
    /// The name of the binary in which the test is.
    pub binary: String,
    /// Its package, if a runner has said so.
    pub package: Option<String>,
    /// The options by which Cargo builds this binary and few others.
    pub target: Vec<String>,
    /// The directory of its profile in the target directory, such as `debug`.
    pub profile: Option<String>,
    /// The process.
    pub pid: u32,
    /// When it began, in seconds since 1970.
    pub unix_time: f64,
    /// The variables that begin with `VMTEST_`.
    pub settings: BTreeMap<String, String>,
    /// Which attempt a runner calls it that repeats tests.
    pub runner_attempt: Option<String>,
    /// What nextest says of the attempt, if it runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<serde_json::Value>,
    /// Where images and fixture disks were.
    pub cache: PathBuf,
    /// The machine below.
    pub host: HostMachine,
}

/// A machine on which tests run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HostMachine {
    /// The release of its kernel.
    pub kernel: String,
    /// Its architecture, as the kernel says it.
    pub arch: String,
    /// How many processors this process may use.
    pub cpus: usize,
    /// Its memory in bytes.
    pub memory: u64,
}

impl HostMachine {
    fn here() -> Self {
        let (kernel, memory) = (uname(), sysinfo());
        Self {
            kernel: kernel.release().to_string_lossy().into_owned(),
            arch: kernel.machine().to_string_lossy().into_owned(),
            cpus: available_parallelism().map_or(1, usize::from),
            memory: memory.totalram.saturating_mul(memory.mem_unit.into()),
        }
    }
}

impl Started {
    /// That of an attempt that begins now, of this test, whose files are below `base`.
    pub(super) fn now(test: &str, base: &Path, cache: &Path) -> Self {
        let binary = place::binary();
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let settings = env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("VMTEST_"))?;
            Some((name, value.to_string_lossy().into_owned()))
        });
        Self {
            format: FORMAT,
            vmtest: env!("CARGO_PKG_VERSION").to_owned(),
            runner_name: place::runner_name(test),
            test: test.to_owned(),
            package: env::var("CARGO_PKG_NAME").ok(),
            target: again::target(base, &binary),
            profile: place::profile(),
            pid: std::process::id(),
            // In JSON a number with few digits is the same when it is read.
            unix_time: unix.as_millis() as f64 / 1000.0,
            settings: settings.collect(),
            runner_attempt: env::var("NEXTEST_ATTEMPT").ok(),
            runner: Runner::get().as_ref().map(Runner::to_json),
            cache: cache.to_owned(),
            host: HostMachine::here(),
            binary,
        }
    }

    /// Reads that of the attempt in this directory.
    ///
    /// # Errors
    /// Why it is none that can be repeated, with what to do about it.
    pub fn read(dir: &Path) -> Result<Self, String> {
        let shown = dir.display();
        let bytes = fs::read(dir.join(STARTED)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound if !dir.exists() => format!("there is no directory {shown}"),
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => no_attempt(dir),
            _ => format!("cannot read {STARTED} in {shown}: {e}"),
        })?;
        let value: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|e| format!("{STARTED} in {shown} is damaged: {e}"))?;
        let format = value["format"].as_u64();
        if format != Some(FORMAT.into()) {
            let by =
                value["vmtest"].as_str().map_or("another version".to_owned(), |version| format!("version {version}"));
            let form = format.map_or("without a number".to_owned(), |format| format!("number {format}"));
            return Err(format!(
                "{shown} was kept by {by} of vmtest, in a form {form}, and this one reads number {FORMAT}: \
                 take the version with which it was made"
            ));
        }
        serde_json::from_value(value).map_err(|e| format!("{STARTED} in {shown} is damaged: {e}"))
    }
}

/// The message for what holds no attempt itself.
fn no_attempt(dir: &Path) -> String {
    let of_one = "give the directory of one attempt, which a failed test prints behind `everything:`";
    match Kept::all(dir).first() {
        Some(newest) => {
            format!("{} has many attempts: {of_one}; the newest is {}", dir.display(), newest.dir.display())
        }
        None => format!("nothing was kept of a test in {}: {of_one}", dir.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_attempt_is_refused_with_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |path: &Path| Started::read(path).unwrap_err();
        assert!(refused(&dir.path().join("none")).starts_with("there is no directory "));
        assert!(refused(dir.path()).contains("nothing was kept of a test in "));

        let attempt = dir.path().join("b.test/1");
        fs::create_dir_all(&attempt).unwrap();
        let write = |text: &str| fs::write(attempt.join(STARTED), text).unwrap();
        write(r#"{"test":"t","binary":"b"}"#);
        assert!(refused(&attempt).contains("by another version of vmtest, in a form without a number"));
        assert!(refused(dir.path()).ends_with(&format!("the newest is {}", attempt.display())));
        write(r#"{"format":99,"vmtest":"9.9.9"}"#);
        assert!(refused(&attempt).contains("version 9.9.9 of vmtest, in a form number 99"));
        write(r#"{"format":1"#);
        assert!(refused(&attempt).contains("is damaged"));
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let now = Started::now("a::test", Path::new("."), Path::new("/cache"));
        fs::write(dir.path().join(STARTED), serde_json::to_vec(&now).unwrap()).unwrap();
        assert_eq!(Started::read(dir.path()).unwrap(), now);
        assert!(now.host.cpus > 0 && now.host.memory > 64 << 20, "{:?}", now.host);
    }
}
