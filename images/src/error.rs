//! The error of this crate.

use std::{io, path::PathBuf};

use crate::Algorithm;

/// An image could not be found or made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no image of this name.
    #[error("there is no image `{name}`: known are {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that there are, and what else may have been meant.
        known: String,
    },
    /// A file of the cache or of a build could not be read or written.
    #[error("cannot {what} {}", path.display())]
    File {
        /// What was done with it.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program that builds images failed.
    #[error("`{command}` failed: {why}")]
    Tool {
        /// The command.
        command: String,
        /// What it said.
        why: String,
    },
    /// A program that builds images cannot be run.
    #[error(
        "cannot run `{program}`, with which images are made from the packages of Debian or Ubuntu: {source}{}",
        install(program)
    )]
    NoTool {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// Programs that build kernels are missing.
    #[error(
        "the kernel is compiled, and this host lacks {missing}: `sudo apt-get install -y --no-install-recommends \
         {packages}` installs that"
    )]
    Tools {
        /// What is missing.
        missing: String,
        /// The packages that have it.
        packages: String,
    },
    /// The place of the cache is full.
    #[error(
        "no space left in {}: free some, as `cargo vmtest image prune` does, or set VMTEST_CACHE to another place",
        dir.display()
    )]
    Full {
        /// Where there was no space.
        dir: PathBuf,
    },
    /// The distribution has no such package, or its lists were never read.
    #[error(
        "there is no package `{package}` in the lists of apt: run `apt-get update` as root, and check that the machine's sources have it"
    )]
    Package {
        /// The package.
        package: String,
    },
    /// A kernel cannot be made into what some VMMs load alone.
    #[error("the kernel {} cannot be unpacked: {why}", path.display())]
    Kernel {
        /// The kernel.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// What should be a digest is none.
    #[error(
        "`{text}` is no {algorithm}: give its {} hexadecimal digits, as `{}sum` prints them; nothing is fetched without",
        algorithm.digits(), algorithm.tag()
    )]
    NoDigest {
        /// What was given.
        text: String,
        /// What it should be.
        algorithm: Algorithm,
    },
    /// What says which cloud images there are could not be read or written.
    #[error("the catalog {at} cannot be {what}: {why}")]
    Catalog {
        /// Its file, with the line where that is known.
        at: String,
        /// What was done with it.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A file could not be fetched.
    #[error("cannot fetch {url}, after {tries} {}: {why}", if *tries == 1 { "try" } else { "tries" })]
    Download {
        /// Its address.
        url: String,
        /// What happened to the last try.
        why: String,
        /// How many tries failed in a row.
        tries: u32,
    },
    /// What was fetched is something else than what was asked for. Nothing of it stays.
    #[error(
        "{url} is not what it should be: its {algorithm} is {is}, and {expected} was expected; nothing of it was kept"
    )]
    Corrupt {
        /// Its address.
        url: String,
        /// How the digests are made.
        algorithm: Algorithm,
        /// Its digest.
        is: String,
        /// The one that it should have.
        expected: String,
    },
    /// An image cannot be as it was asked for.
    #[error("`{image}` cannot be made: {why}")]
    Refused {
        /// What was asked for.
        image: String,
        /// Why, and what to do.
        why: String,
    },
    /// The release of the distribution has no such package.
    #[error("there is no package `{package}` in {release}: look for its name there, or leave it out")]
    NotInRelease {
        /// The package.
        package: String,
        /// The release.
        release: String,
    },
    /// The machine's apt does not reach the release of an image.
    #[error("{release} cannot be had from the apt sources of this machine: {why}")]
    Release {
        /// The release.
        release: String,
        /// What apt said.
        why: String,
    },
    /// This process has not the ids of a whole system.
    #[error(
        "it is made with all ids of a system, which take root, or a range of 65536 in /etc/subuid and /etc/subgid with \
         `newuidmap` to map them: `sudo apt-get install -y uidmap` and `sudo usermod --add-subuids 100000-165535 \
         --add-subgids 100000-165535 $USER` add what is missing"
    )]
    Ids,
    /// A root file system could not be made.
    #[error("the image could not be made, while {step}:\n  {said}")]
    Build {
        /// What was being done.
        step: String,
        /// The last lines that were printed.
        said: String,
    },
    /// A package lacks a file that an image needs.
    #[error("the packages hold no `{what}`; the image cannot be made from them")]
    Content {
        /// What was looked for.
        what: String,
    },
}

impl Error {
    /// That an image cannot be as it was asked for.
    pub(crate) fn refused(image: &crate::ImageSpec, why: &str) -> Self {
        Self::Refused { image: image.to_string(), why: why.to_owned() }
    }

    /// For `map_err`: what was done with which file.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull => Self::Full { dir: path.parent().unwrap_or(&path).to_owned() },
            _ => Self::File { what, path, source },
        }
    }
}

/// The line that installs what not every Debian has.
fn install(program: &str) -> &'static str {
    if program == "mmdebstrap" { ": `sudo apt-get install -y mmdebstrap` installs it" } else { "" }
}
