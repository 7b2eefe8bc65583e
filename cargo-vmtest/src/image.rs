//! `cargo vmtest image`: guest images in the cache.

use std::{cell::RefCell, path::PathBuf, process::ExitCode, time::Duration};

use clap::Subcommand;
use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use vmtest::harness::control::{Description, runs};
use vmtest_images::{Beside, Cache, ImageSpec, KeptImage, Progress, Pulled, ensure, pull};

use super::{
    catalog,
    last_use::age,
    meant::meant,
    output::{self, line},
};

/// The form of what `--json` prints, raised when it changes.
const VERSION: u32 = 1;

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make an image, or find it in the cache.
    Build {
        /// Its name, such as `debian-12`, `oci:path/to/image.tar`, `docker://registry.example/repository:tag`,
        /// `cloud:debian-12`, `cloud:path/to/disk.qcow2` or `kernel:small`.
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
    /// Ask registries what these names stand for now, and make the images that the cache does not have. Tests go on with what a
    /// name stood for until then.
    Pull {
        /// Their names, such as `docker://registry.example/repository:tag`.
        #[arg(required = true)]
        images: Vec<String>,
        /// Print the images as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show the images in the cache: how large they are, when they were used last, and who uses them now; and what is there beside
    /// them.
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
    /// Show the cloud images that can be named: those of the catalog that VMTEST_CATALOG names, and ours.
    Catalog {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Ask the publishers of cloud images for newer ones, and write them into a catalog. Fails where one of them does not say,
    /// with what the others have said.
    Bump {
        /// The names of the images; one of ours that the catalog does not have is added to it. Without, all that the catalog
        /// has and of which it says how.
        names: Vec<String>,
        /// The catalog, which may be a new file where names are given; without, the one that VMTEST_CATALOG names.
        #[arg(long, value_name = "FILE")]
        catalog: Option<PathBuf>,
        /// Only say what is newer.
        #[arg(long)]
        dry_run: bool,
        /// Print what was found as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove what nobody has used for long (images, layers that came from registries, downloads, unpacked kernels), what was
    /// replaced, and what killed builds have left.
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
            let spec = ImageSpec { packages: packages.into_iter().collect(), prepare, ..ImageSpec::from(&*name) };
            let image = ensure(&cache, &spec, &Shown::of(&spec)).map_err(|e| e.to_string())?;
            if json {
                line(serde_json::to_string(&image).map_err(|e| e.to_string())?);
            } else {
                line(image.kernel.parent().unwrap_or(&image.kernel).display());
            }
        }
        Command::Pull { images, json } => return pull_all(&cache, &images, json),
        Command::Catalog { json } => catalog::list(&cache, json)?,
        Command::Bump { names, catalog, dry_run, json } => return catalog::bump(&names, catalog, dry_run, json),
        Command::Ls { json } => list(&kept(&cache)?, &cache.beside_images().map_err(|e| e.to_string())?, json)?,
        Command::Inspect { image } => {
            let all = kept(&cache)?;
            output::json(find(&all, &image)?)?;
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
        Command::Prune { older_than, all, dry_run } => {
            prune(&cache, if all { Duration::ZERO } else { older_than }, dry_run)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Serialize)]
struct PullReport<'a> {
    version: u32,
    images: &'a [Pulled],
}

/// Each of them, also after one that fails.
fn pull_all(cache: &Cache, names: &[String], json: bool) -> Result<ExitCode, String> {
    let (mut all, mut code) = (Vec::new(), ExitCode::SUCCESS);
    for name in names {
        let spec = ImageSpec::from(name.as_str());
        let shown = Shown::of(&spec);
        let pulled = pull(cache, &spec, &shown);
        drop(shown);
        match pulled {
            Ok(pulled) => {
                if !json {
                    let state = if pulled.changed { "is new" } else { "has not changed" };
                    let digest = pulled.image.digest.as_deref().unwrap_or_default();
                    line(format_args!("{} {state}: {digest}", pulled.image.name));
                }
                all.push(pulled);
            }
            Err(e) => {
                eprintln!("error: {name}: {e}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if json {
        let report = PullReport { version: VERSION, images: &all };
        output::json(&report)?;
    }
    Ok(code)
}

fn kept(cache: &Cache) -> Result<Vec<KeptImage>, String> {
    cache.kept().map_err(|e| e.to_string())
}

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    images: &'a [KeptImage],
    #[serde(flatten)]
    beside: &'a Beside,
}

fn list(all: &[KeptImage], beside: &Beside, json: bool) -> Result<(), String> {
    if json {
        let report = Report { version: VERSION, images: all, beside };
        return output::json(&report);
    }
    let width = all.iter().map(|image| image.id.len()).max().unwrap_or_default();
    let runs = live();
    for image in all {
        let state = if image.in_use {
            format!("in use{}", by_whom(image, &runs))
        } else {
            format!("used {} ago", age(image.used))
        };
        let replaced = if image.image.is_none() { ", replaced by another" } else { "" };
        let digest = image.image.as_ref().and_then(|image| image.digest.as_deref());
        let digest = digest.map(|digest| format!(", {}", catalog::short(digest))).unwrap_or_default();
        // That of an image of a container says nothing of where it is from.
        let names: String =
            image.names.iter().filter(|name| name.contains(':')).map(|name| format!(", {name}")).collect();
        line(format_args!(
            "{:width$}  {:>10}  {state}{replaced}{digest}{names}",
            image.id,
            HumanBytes(image.bytes).to_string()
        ));
    }
    line(format_args!("{} images, {}", all.len(), HumanBytes(all.iter().map(|image| image.bytes).sum())));
    parts(beside).for_each(|(what, bytes)| line(format_args!("{what}, {}", HumanBytes(bytes))));
    Ok(())
}

/// What there is of that.
fn parts(beside: &Beside) -> impl Iterator<Item = (&'static str, u64)> {
    let all = [
        ("layers as they came from registries", beside.layer_bytes),
        ("kernels that were unpacked", beside.kernel_bytes),
        ("downloads", beside.download_bytes),
        ("what builds are at or have left", beside.unfinished_bytes),
    ];
    all.into_iter().filter(|(_, bytes)| *bytes > 0)
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
    let whole = ImageSpec::from(name).whole_name();
    let (exact, by_name) = (|image: &KeptImage| image.id == name, |image: &KeptImage| image.names.contains(&whole));
    meant("image", name, all, |image| &image.id, &[&exact, &by_name, &|image| image.id.starts_with(name)])
}

fn prune(cache: &Cache, older_than: Duration, dry_run: bool) -> Result<(), String> {
    let removed = if dry_run { "would remove" } else { "removed" };
    let (mut count, mut freed) = (0_u32, 0);
    for image in &kept(cache)? {
        if image.in_use || !image.is_unused(older_than) {
            continue;
        }
        // Somebody may have taken it meanwhile.
        if dry_run || image.remove_unused(cache, older_than).map_err(|e| e.to_string())? {
            line(format_args!("{removed} {}, {}", image.id, HumanBytes(image.bytes)));
            (count, freed) = (count + 1, freed + image.bytes);
        }
    }
    let swept = cache.sweep(older_than, dry_run).map_err(|e| e.to_string())?;
    parts(&swept).for_each(|(what, bytes)| line(format_args!("{removed} {what}, {}", HumanBytes(bytes))));
    line(format_args!("{count} images, {}", HumanBytes(freed + swept.bytes())));
    Ok(())
}

/// A bar on the terminal, else a line on stderr for each step.
struct Shown {
    image: String,
    bar: ProgressBar,
    step: RefCell<String>,
}

impl Shown {
    fn of(spec: &ImageSpec) -> Self {
        let bar = ProgressBar::with_draw_target(Some(100), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{prefix} [{bar:30}] {msg} ({elapsed})");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(spec.to_string());
        Self { image: spec.to_string(), bar, step: RefCell::default() }
    }
}

impl Progress for Shown {
    fn step(&self, percent: u64, what: &str) {
        let new = self.step.replace(what.to_owned()) != what;
        if self.bar.is_hidden() {
            if new {
                eprintln!("{}: {what} ({percent} %)", self.image);
            }
            return;
        }
        self.bar.set_message(what.to_owned());
        self.bar.set_position(percent);
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
