//! Finds the commit for `--version`: in a package Cargo has written it down, in a checkout git knows it, and elsewhere there
//! is none.

use std::{env, fs, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let here = env::var_os("CARGO_MANIFEST_DIR").expect("Cargo sets it");
    let here = Path::new(&here);
    let commit = packaged(here).or_else(|| checked_out(here));
    let version = env::var("CARGO_PKG_VERSION").expect("Cargo sets it");
    let version = commit.map_or(version.clone(), |commit| format!("{version} ({commit})"));
    println!("cargo::rustc-env=COMMAND_VERSION={version}");
}

/// What `cargo package` has written beside the manifest.
fn packaged(here: &Path) -> Option<String> {
    let info = fs::read_to_string(here.join(".cargo_vcs_info.json")).ok()?;
    let (_, rest) = info.split_once("\"sha1\"")?;
    let commit = rest.split('"').nth(1)?;
    let is_commit = commit.len() >= 12 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit[..12].to_owned())
}

/// What git says, if this very folder is one of its own: a package that was unpacked below another project has not that
/// project's commit.
fn checked_out(here: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(here).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    // A commit changes the log of HEAD, and so does another branch.
    for name in ["HEAD", "logs/HEAD"] {
        let path = here.join(git(&["rev-parse", "--git-path", name])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"])
}
