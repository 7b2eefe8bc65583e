//! Fixture disks: made, and found again.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use vmtest_fixtures::{Cache, Fixture};

use super::{Figure, Pairs};

/// What an unchanged fixture may take is stated for so many files.
const FILES: usize = 2000;
const LARGE_FILES: usize = 64;
const LARGE_FILE: usize = 4 << 20;

/// Builds beside `mkfs.ext4 -d` with its own defaults, and hits.
pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a directory: {e}"))?;
    let (small, large) = (scratch.path().join("small"), scratch.path().join("large"));
    fill(&small, FILES, 4000).and_then(|()| fill(&large, LARGE_FILES, LARGE_FILE)).map_err(|e| e.to_string())?;
    let mut figures = Vec::new();
    for (name, dir) in [("fixture of 2,000 files", &small), ("fixture of 256 MiB", &large)] {
        let mut figure = Pairs::default();
        for n in 0..pairs {
            let image = scratch.path().join(format!("{n}.img"));
            let theirs = bare(dir, &image)?;
            fs::remove_file(&image).map_err(|e| e.to_string())?;
            let cache = scratch.path().join(format!("cache{n}"));
            figure.push(ours(dir, &cache)?, theirs);
            fs::remove_dir_all(&cache).map_err(|e| e.to_string())?;
        }
        figures.push(figure.beside(name, "mkfs.ext4 -d"));
    }
    let cache = scratch.path().join("cache");
    ours(&small, &cache)?;
    // The second finds the files too young to be trusted by their times, and reads them.
    ours(&small, &cache)?;
    let hits = (0..pairs.max(10)).map(|_| ours(&small, &cache)).collect::<Result<Vec<_>, _>>()?;
    figures.push(Figure::time("the same fixture, unchanged", hits));
    Ok(figures)
}

fn fill(dir: &Path, files: usize, bytes: usize) -> std::io::Result<()> {
    for n in 0..files {
        let below = dir.join(format!("dir{}", n % 20));
        fs::create_dir_all(&below)?;
        // No zeros, which would not be written.
        let contents: Vec<u8> = (0..bytes).map(|at| ((at + n) % 255 + 1) as u8).collect();
        fs::write(below.join(format!("file{n}")), contents)?;
    }
    Ok(())
}

fn ours(dir: &Path, cache: &Path) -> Result<Duration, String> {
    let started = Instant::now();
    let cache = Cache::open(cache).map_err(|e| e.to_string())?;
    Fixture::from_dir(dir).build(&cache).map_err(|e| e.to_string())?;
    Ok(started.elapsed())
}

fn bare(dir: &Path, image: &Path) -> Result<Duration, String> {
    let started = Instant::now();
    let mut command = Command::new("mkfs.ext4");
    command.args(["-q", "-F", "-d"]).args([dir, image]).arg("400M");
    let path = std::env::var("PATH").unwrap_or_default();
    let status = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdout(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(started.elapsed()),
        Ok(status) => Err(format!("mkfs.ext4: {status}")),
        Err(e) => Err(format!("cannot run mkfs.ext4: {e}")),
    }
}
