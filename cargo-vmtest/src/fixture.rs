//! `cargo vmtest fixture`: makes fixture disks, shows what is on one, and lists those in the cache.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::ExitCode,
    time::SystemTime,
};

use clap::Subcommand;
use serde::Serialize;
use vmtest_fixtures::{CachedDisk, Disk, Fixture, Inspected, inspect};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make the disk of a directory, or find it in the cache.
    Build {
        /// The directory; what its .vmtestignore names is left out.
        dir: PathBuf,
        /// The file system's label, at most 16 bytes of letters, digits, `.`, `_` and `-` [default: the directory's name].
        #[arg(long)]
        label: Option<String>,
        /// Print the disk as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the files of a disk, without mounting it.
    Inspect {
        /// A disk, or a directory whose disk is made if the cache does not have it.
        path: PathBuf,
        /// Print the files as JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// List the disks in the cache, those that were used last first.
    List {
        /// Print the disks as JSON lines.
        #[arg(long)]
        json: bool,
    },
}

/// A disk, for machines.
#[derive(Serialize)]
struct Built<'a> {
    path: &'a Path,
    label: &'a str,
    key: &'a str,
    bytes: u64,
}

pub(crate) fn run(command: Command) -> Result<ExitCode, String> {
    match command {
        Command::Build { dir, label, json } => {
            let fixture = label.into_iter().fold(Fixture::from_dir(dir), Fixture::label);
            let disk = build(&fixture)?;
            if json {
                print_json(&Built { path: &disk.path, label: &disk.label, key: &disk.key, bytes: disk.bytes })?;
            } else {
                println!("{}", disk.path.display());
            }
        }
        Command::Inspect { path, json } => {
            let disk = if path.is_dir() { build(&Fixture::from_dir(path))?.path } else { path };
            for file in inspect(&disk).map_err(|e| e.to_string())? {
                if json { print_json(&file)? } else { println!("{}", line(&file)) }
            }
        }
        Command::List { json } => {
            let cache = vmtest::harness::fixture_cache().map_err(|e| e.to_string())?;
            let disks = cache.disks().map_err(|e| e.to_string())?;
            for disk in &disks {
                if json { print_json(disk)? } else { println!("{}", row(disk)) }
            }
            if !json {
                let total: u64 = disks.iter().map(|disk| disk.allocated).sum();
                println!("{} disks, {} in {}", disks.len(), size(total), cache.dir().display());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn build(fixture: &Fixture) -> Result<Disk, String> {
    let cache = vmtest::harness::fixture_cache().map_err(|e| e.to_string())?;
    let step = RefCell::new(String::new());
    let progress = |_, what: &str| {
        if step.replace(what.to_owned()) != what {
            eprintln!("{fixture}: {what}");
        }
    };
    fixture.build_with(&cache, &progress).map_err(|e| e.to_string())
}

/// As `ls -l` would show it, for names of any bytes.
fn line(Inspected { path, kind, mode, bytes, target, .. }: &Inspected) -> String {
    let kind = match *kind {
        "directory" => 'd',
        "symlink" => 'l',
        _ => '-',
    };
    let target = target.as_ref().map_or_else(String::new, |target| format!(" -> {}", target.display()));
    format!("{kind}{mode:04o} {bytes:>12} {}{target}", path.display())
}

fn row(CachedDisk { key, bytes, allocated, used, in_use, .. }: &CachedDisk) -> String {
    let age = SystemTime::now().duration_since(*used).unwrap_or_default();
    let used = if *in_use { "in use".to_owned() } else { format!("used {} min ago", age.as_secs() / 60) };
    format!("{key}  {:>10} on the host, {:>10} in a guest, {used}", size(*allocated), size(*bytes))
}

fn size(bytes: u64) -> String {
    indicatif::HumanBytes(bytes).to_string()
}

fn print_json(value: &impl Serialize) -> Result<(), String> {
    println!("{}", serde_json::to_string(value).map_err(|e| e.to_string())?);
    Ok(())
}
