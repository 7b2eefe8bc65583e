//! Packages of the distribution, fetched through the machine's own apt and unpacked as an ordinary user.

use std::{
    collections::BTreeSet,
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::io::Errno;

use crate::{Error, Result, inside::alone, key::short};

/// Apt drops root's rights for downloads, which fails in directories of root and in user namespaces.
const AS_CALLER: &str = "APT::Sandbox::User=root";
/// What programs say of a full disk in the C locale: of `ENOSPC`, and apt of what it does not begin to fetch.
const NO_SPACE: &[&str] = &["No space left on device", "You don't have enough free space in "];
/// How many bytes of what a failed program said are shown.
const SHOWN_COMPLAINTS: usize = 4096;

/// The package and everything that it depends on, alphabetically.
pub(crate) fn closure(package: &str) -> Result<Vec<String>> {
    let mut args = vec!["depends", "--recurse"];
    args.extend([
        "--no-recommends",
        "--no-suggests",
        "--no-conflicts",
        "--no-breaks",
        "--no-replaces",
        "--no-enhances",
    ]);
    args.push(package);
    let text = ask(package, &args)?;
    // Packages stand at the start of a line; relations are indented, and virtual packages are in angle brackets.
    let names = text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_alphanumeric()));
    // `apt-cache` names packages of another architecture with a suffix.
    let names: BTreeSet<_> = names.filter(|name| !name.contains(':')).map(str::to_owned).collect();
    if names.is_empty() { Err(unknown(package)) } else { Ok(names.into_iter().collect()) }
}

/// The first dependency of a package whose name begins like this.
pub(crate) fn dependency(package: &str, prefix: &str) -> Result<String> {
    let text = ask(package, &["depends", "--important", package])?;
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let found = names.filter(|name| name.starts_with(prefix)).map(str::to_owned).next();
    found.ok_or_else(|| unknown(package))
}

/// Whether apt knows a package of this name that can be installed.
pub(crate) fn exists(package: &str) -> Result<bool> {
    match ask(package, &["show", "--no-all-versions", package]) {
        Ok(_) => Ok(true),
        Err(Error::Package { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Asks apt about a package.
fn ask(package: &str, args: &[&str]) -> Result<String> {
    run(Command::new("apt-cache").args(args)).map_err(|e| match e {
        Error::Tool { .. } => unknown(package),
        e => e,
    })
}

/// Downloads packages into a directory, and tells how many percent are there. The result are the files, in the order of
/// their names.
pub(crate) fn download(packages: &BTreeSet<String>, dir: &Path, downloaded: impl Fn(u64)) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(dir).map_err(Error::file("make", dir))?;
    let mut command = Command::new("apt-get");
    command.args(["download", "-q", "-o", AS_CALLER, "-o", "APT::Status-Fd=1"]).args(packages).current_dir(dir);
    run_watched(&command, |line| {
        if let Some(percent) = percent_of(line) {
            downloaded(percent);
        }
    })?;
    let entries = fs::read_dir(dir).map_err(Error::file("read", dir))?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|ending| ending == "deb")).collect();
    files.sort();
    Ok(files)
}

/// From apt's `dlstatus:<file>:<percent>:<text>`.
fn percent_of(line: &str) -> Option<u64> {
    let percent = line.strip_prefix("dlstatus:")?.split(':').nth(1)?;
    percent.split('.').next()?.parse().ok().filter(|percent| *percent <= 100)
}

/// Identifies what this recipe makes of these packages: their names with their versions are in the names of their files.
pub(crate) fn key_of(recipe: impl AsRef<[u8]>, files: &[PathBuf]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(recipe.as_ref());
    for name in files.iter().filter_map(|file| file.file_name()) {
        hasher.update(name.as_encoded_bytes()).update(b"\0");
    }
    short(hasher.finalize())
}

/// Unpacks a package's files into a directory; runs none of its scripts.
pub(crate) fn unpack(package: &Path, dir: &Path) -> Result<()> {
    run(Command::new("dpkg-deb").arg("-x").arg(package).arg(dir).current_dir(dir)).map(drop)
}

/// Whether a program that has said this found the disk full.
pub(crate) fn says_no_space(said: &str) -> bool {
    NO_SPACE.iter().any(|words| said.contains(words))
}

/// Whether there is such a program: a file where it is a path, else one of this name in `PATH`.
pub(crate) fn is_there(program: &OsStr) -> bool {
    let file = Path::new(program);
    let path = env::var_os("PATH").unwrap_or_default();
    if file.components().count() > 1 {
        file.is_file()
    } else {
        env::split_paths(&path).any(|dir| dir.join(file).is_file())
    }
}

/// Runs a program and gives what it printed.
pub(crate) fn run(command: &Command) -> Result<String> {
    let mut printed = String::new();
    run_watched(command, |line| printed.extend([line, "\n"]))?;
    Ok(printed)
}

/// Runs a program and hands over each line that it prints, as it comes. Nothing of it outlives this process.
pub(crate) fn run_watched(command: &Command, mut line: impl FnMut(&str)) -> Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let shown = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    let failed = |why: String| Error::Tool { command: shown.clone(), why };
    // In a file, so that a program that complains at length never waits for us.
    let complaints = tempfile::tempfile().map_err(Error::file("make a file in", env::temp_dir()))?;
    let stderr = complaints.try_clone().map_err(|e| failed(e.to_string()))?;
    let no_tool = |program: &OsStr, source| Error::NoTool { program: program.to_string_lossy().into_owned(), source };
    // What starts it says that in its own way.
    if !is_there(command.get_program()) {
        return Err(no_tool(command.get_program(), Errno::NOENT.into()));
    }
    let mut alone = alone(command);
    alone.env("LC_ALL", "C").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    let mut child = alone.spawn().map_err(|source| no_tool(alone.get_program(), source))?;
    let stdout = child.stdout.take().expect("it was asked for");
    for bytes in BufReader::new(stdout).split(b'\n') {
        let bytes = bytes.map_err(|e| failed(e.to_string()))?;
        line(&String::from_utf8_lossy(&bytes));
    }
    let status = child.wait().map_err(|e| failed(e.to_string()))?;
    if !status.success() {
        let mut text = vec![0; SHOWN_COMPLAINTS];
        let length = complaints.read_at(&mut text, 0).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[..length]);
        if let Some(dir) = command.get_current_dir().filter(|_| says_no_space(&text)) {
            return Err(Error::Full { dir: dir.to_owned() });
        }
        return Err(failed(format!("{status}: {}", text.trim())));
    }
    Ok(())
}

fn unknown(package: &str) -> Error {
    Error::Package { package: package.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_shown_with_what_it_said() {
        let error = run(Command::new("sh").args(["-c", "echo out; echo why >&2; exit 3"])).expect_err("it fails");
        assert_eq!(error.to_string(), "`sh -c echo out; echo why >&2; exit 3` failed: exit status: 3: why");
        assert!(run(&Command::new("/nonexistent")).expect_err("there is none").to_string().contains("No such file"));
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let dir = tempfile::tempdir().expect("a directory");
        let said = |words: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", "echo \"$0\" >&2; exit 1", words]).current_dir(dir.path());
            run(&command).expect_err("it fails").to_string()
        };
        let full = format!("no space left in {}: ", dir.path().display());
        for words in [
            "tar: x: Cannot write: No space left on device",
            "E: You don't have enough free space in /var/cache/apt/archives/.",
        ] {
            assert!(said(words).starts_with(&full), "{words}");
        }
        assert!(said("E: Couldn't determine free space in /x").contains("failed: exit status: 1: E: Couldn't"));
    }

    #[test]
    fn the_progress_of_apt_is_read() {
        assert_eq!(percent_of("dlstatus:2:10.3903:Retrieving file 2 of 2"), Some(10));
        assert_eq!(percent_of("Get:1 somewhere"), None);
    }
}
