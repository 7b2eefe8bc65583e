//! `cargo vmtest volume`: the disks that are kept from one run to the next.

use std::{process::ExitCode, time::Duration};

use clap::Subcommand;
use indicatif::HumanBytes;
use serde::Serialize;
use vmtest::harness::volumes;
use vmtest_fixtures::KeptVolume;

use super::{
    last_use::{age, not_used_for},
    meant::meant,
    output::{self, line},
};

/// The form of what `--json` prints, raised when it changes.
const VERSION: u32 = 1;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Show the volumes of all projects: how large they are, when they were used last, and who uses them now.
    Ls {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove volumes with all that is on them, but none that a test uses.
    Rm {
        /// Their names, or what `ls` shows.
        #[arg(required = true)]
        volumes: Vec<String>,
    },
    /// Remove what nobody has used for long.
    Prune {
        /// How long nobody has used it, such as `12h` or `30days`.
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// Only say what it would be.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, String> {
    let all = volumes().map_err(|e| e.to_string())?;
    match command {
        Command::Ls { json } => list(&all, json)?,
        Command::Rm { volumes } => {
            // All names are looked at before anything is gone.
            let found: Vec<_> = volumes.iter().map(|name| find(&all, name)).collect::<Result<_, _>>()?;
            if let Some(used) = found.iter().find(|volume| volume.in_use) {
                return Err(in_use(used));
            }
            for volume in found {
                if !volume.remove().map_err(|e| e.to_string())? {
                    return Err(in_use(volume));
                }
                line(format_args!("removed {}, {}", volume.id, HumanBytes(volume.allocated)));
            }
        }
        Command::Prune { older_than, dry_run } => prune(&all, older_than, dry_run)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    volumes: &'a [KeptVolume],
}

fn list(all: &[KeptVolume], json: bool) -> Result<(), String> {
    if json {
        let report = Report { version: VERSION, volumes: all };
        return output::json(&report);
    }
    let width = all.iter().map(|volume| volume.id.len()).max().unwrap_or_default();
    for volume in all {
        let state =
            if volume.in_use { format!("in use{}", by_whom(volume)) } else { format!("used {} ago", age(volume.used)) };
        let bytes = volume.bytes.map_or("of fake machines".to_owned(), |bytes| format!("of {}", HumanBytes(bytes)));
        let gone = volume.project.as_ref().filter(|project| !project.exists());
        let gone = gone.map(|project| format!(", {} is gone", project.display())).unwrap_or_default();
        let allocated = HumanBytes(volume.allocated).to_string();
        line(format_args!("{:width$}  {allocated:>10} {bytes}, {state}{gone}", volume.id));
    }
    line(format_args!("{} volumes, {}", all.len(), HumanBytes(all.iter().map(|volume| volume.allocated).sum())));
    Ok(())
}

fn by_whom(volume: &KeptVolume) -> String {
    let names: Vec<_> = volume.used_by.iter().map(|user| format!("`{}`, process {}", user.name, user.pid)).collect();
    if names.is_empty() { String::new() } else { format!(" by {}", names.join(" and ")) }
}

fn in_use(volume: &KeptVolume) -> String {
    format!("{} is in use{}", volume.id, by_whom(volume))
}

/// The volume that a person means.
fn find<'a>(all: &'a [KeptVolume], name: &str) -> Result<&'a KeptVolume, String> {
    meant("volume", name, all, |volume| &volume.id, &[&|volume| volume.id == name, &|volume| volume.name == name])
}

fn prune(all: &[KeptVolume], older_than: Duration, dry_run: bool) -> Result<(), String> {
    let (mut count, mut freed) = (0_u32, 0);
    for volume in all {
        if volume.in_use || not_used_for(volume.used) < older_than {
            continue;
        }
        // Somebody may have taken it meanwhile.
        if dry_run || volume.remove().map_err(|e| e.to_string())? {
            let removed = if dry_run { "would remove" } else { "removed" };
            line(format_args!("{removed} {}, {}", volume.id, HumanBytes(volume.allocated)));
            (count, freed) = (count + 1, freed + volume.allocated);
        }
    }
    line(format_args!("{count} volumes, {}", HumanBytes(freed)));
    Ok(())
}
