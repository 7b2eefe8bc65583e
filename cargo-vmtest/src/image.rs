//! `cargo vmtest image`: guest images in the cache.

use std::{
    cell::RefCell,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use clap::Subcommand;
use indicatif::HumanBytes;
use serde::Serialize;
use vmtest::harness::control::{Description, runs};
use vmtest_images::{Cache, ImageSpec, KeptImage, Progress, ensure};

use super::output::line;

/// The form of what `--json` prints, raised when it changes.
const VERSION: u32 = 1;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make an image, or find it in the cache.
    Build {
        /// Its name, such as `debian-12` or `oci:path/to/image.tar`.
        name: String,
        /// A package that it has beside its own; may be repeated.
        #[arg(long = "package")]
        packages: Vec<String>,
        /// A program that runs once inside of it.
        #[arg(long)]
        prepare: Option<PathBuf>,
        /// Print the image as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the images in the cache: how large they are, when they were used last, and who uses them now.
    Ls {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show all that is known of one image, as JSON.
    Inspect {
        /// Its name, or what `ls` shows, or the beginning of that.
        image: String,
    },
    /// Remove images that nobody uses.
    Rm {
        /// Their names, or what `ls` shows, or the beginning of that.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Remove what nobody has used for long, what was replaced, and what killed builds have left.
    Prune {
        /// How long nobody has used it, such as `12h` or `30days`.
        #[arg(long, value_name = "TIME", default_value = "30days", value_parser = humantime::parse_duration)]
        older_than: Duration,
        /// Everything that nobody uses now.
        #[arg(long, conflicts_with = "older_than")]
        all: bool,
        /// Only say what it would be.
        #[arg(long)]
        dry_run: bool,
    },
}

pub(crate) fn run(command: Command) -> Result<ExitCode, String> {
    let dir = Cache::default_dir(rustix::process::getuid().as_raw());
    let cache = Cache::open(dir).map_err(|e| e.to_string())?;
    match command {
        Command::Build { name, packages, prepare, json } => {
            let spec = ImageSpec { name, packages: packages.into_iter().collect(), prepare };
            let image = ensure(&cache, &spec, &Lines::of(&spec)).map_err(|e| e.to_string())?;
            if json {
                line(serde_json::to_string(&image).map_err(|e| e.to_string())?);
            } else {
                line(image.kernel.parent().unwrap_or(&image.kernel).display());
            }
        }
        Command::Ls { json } => list(&kept(&cache)?, json)?,
        Command::Inspect { image } => {
            let all = kept(&cache)?;
            line(serde_json::to_string_pretty(find(&all, &image)?).map_err(|e| e.to_string())?);
        }
        Command::Rm { images } => {
            let all = kept(&cache)?;
            // All names are looked at before anything is gone.
            let found: Vec<_> = images.iter().map(|image| find(&all, image)).collect::<Result<_, _>>()?;
            for image in found {
                if !image.remove(&cache).map_err(|e| e.to_string())? {
                    return Err(format!("{} is in use{}", image.id, by_whom(image, &live())));
                }
                line(format_args!("removed {}, {}", image.id, HumanBytes(image.bytes)));
            }
        }
        Command::Prune { older_than, all, dry_run } => prune(&cache, (!all).then_some(older_than), dry_run)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn kept(cache: &Cache) -> Result<Vec<KeptImage>, String> {
    cache.kept().map_err(|e| e.to_string())
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    images: &'a [KeptImage],
}

fn list(all: &[KeptImage], json: bool) -> Result<(), String> {
    if json {
        let report = Report { version: VERSION, images: all };
        line(serde_json::to_string_pretty(&report).map_err(|e| e.to_string())?);
        return Ok(());
    }
    let width = all.iter().map(|image| image.id.len()).max().unwrap_or_default();
    let runs = live();
    for image in all {
        let state =
            if image.in_use { format!("in use{}", by_whom(image, &runs)) } else { format!("used {} ago", age(image)) };
        let replaced = if image.image.is_none() { ", replaced by another" } else { "" };
        line(format_args!("{:width$}  {:>10}  {state}{replaced}", image.id, HumanBytes(image.bytes).to_string()));
    }
    line(format_args!("{} images, {}", all.len(), HumanBytes(all.iter().map(|image| image.bytes).sum())));
    Ok(())
}

/// In the largest unit that says enough.
fn age(image: &KeptImage) -> String {
    match not_used_for(image).as_secs() / 60 {
        minutes @ 0..120 => format!("{minutes} min"),
        minutes @ 120..2880 => format!("{} h", minutes / 60),
        minutes => format!("{} days", minutes / 1440),
    }
}

fn not_used_for(image: &KeptImage) -> Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(Duration::from_secs(image.used))
}

/// The runs of now. Who uses an image is told as far as it is known.
fn live() -> Vec<Description> {
    runs().unwrap_or_default().runs
}

/// The runs and other processes that use it.
fn by_whom(image: &KeptImage, runs: &[Description]) -> String {
    let name = |pid: &u32| match runs.iter().find(|run| run.pid == *pid) {
        Some(run) => format!("`{}` (run {})", run.test, run.run),
        None => format!("process {pid}"),
    };
    let names: Vec<_> = image.used_by.iter().map(name).collect();
    if names.is_empty() { String::new() } else { format!(" by {}", names.join(", ")) }
}

/// The image that a person means.
fn find<'a>(all: &'a [KeptImage], name: &str) -> Result<&'a KeptImage, String> {
    let named = |image: &&KeptImage| image.image.as_ref().is_some_and(|image| image.name == name);
    let exact: Vec<_> = all.iter().filter(|image| image.id == name).collect();
    let by_name: Vec<_> = all.iter().filter(named).collect();
    let by_start: Vec<_> = all.iter().filter(|image| image.id.starts_with(name)).collect();
    let found = [exact, by_name, by_start].into_iter().find(|found| !found.is_empty()).unwrap_or_default();
    let list = |images: &[&KeptImage]| images.iter().map(|image| format!("\n  {}", image.id)).collect::<String>();
    match found.as_slice() {
        [only] => Ok(only),
        [] if all.is_empty() => Err(format!("there is no image `{name}` in the cache, and no other")),
        [] => {
            let all: Vec<_> = all.iter().collect();
            Err(format!("there is no image `{name}` in the cache; there are:{}", list(&all)))
        }
        several => Err(format!("`{name}` can be:{}", list(several))),
    }
}

fn prune(cache: &Cache, older_than: Option<Duration>, dry_run: bool) -> Result<(), String> {
    let (mut count, mut freed) = (0_u32, 0);
    let all = kept(cache)?;
    for image in &all {
        let old = older_than.is_none_or(|limit| image.image.is_none() || not_used_for(image) >= limit);
        if image.in_use || !old {
            continue;
        }
        // Somebody may have taken it meanwhile.
        if dry_run || image.remove(cache).map_err(|e| e.to_string())? {
            let removed = if dry_run { "would remove" } else { "removed" };
            line(format_args!("{removed} {}, {}", image.id, HumanBytes(image.bytes)));
            (count, freed) = (count + 1, freed + image.bytes);
        }
    }
    if !dry_run {
        let kernels = older_than.is_none() && !all.iter().any(|image| image.in_use);
        freed += cache.sweep(kernels).map_err(|e| e.to_string())?;
    }
    line(format_args!("{count} images, {}", HumanBytes(freed)));
    Ok(())
}

/// A line on stderr for each step.
struct Lines {
    image: String,
    step: RefCell<String>,
}

impl Lines {
    fn of(spec: &ImageSpec) -> Self {
        Self { image: spec.to_string(), step: RefCell::default() }
    }
}

impl Progress for Lines {
    fn step(&self, percent: u64, what: &str) {
        if self.step.replace(what.to_owned()) != what {
            eprintln!("{}: {what} ({percent} %)", self.image);
        }
    }
}
