//! `cargo vmtest image`: makes guest images before a test wants them.

use std::{cell::RefCell, path::PathBuf, process::ExitCode};

use clap::Subcommand;
use vmtest_images::{Cache, ImageSpec, Progress, ensure};

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
}

pub(crate) fn run(command: Command) -> Result<ExitCode, String> {
    let Command::Build { name, packages, prepare, json } = command;
    let spec = ImageSpec { name, packages: packages.into_iter().collect(), prepare };
    let dir = Cache::default_dir(rustix::process::getuid().as_raw());
    let image =
        Cache::open(dir).and_then(|cache| ensure(&cache, &spec, &Lines::of(&spec))).map_err(|e| e.to_string())?;
    if json {
        println!("{}", serde_json::to_string(&image).map_err(|e| e.to_string())?);
    } else {
        println!("{}", image.kernel.parent().unwrap_or(&image.kernel).display());
    }
    Ok(ExitCode::SUCCESS)
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
