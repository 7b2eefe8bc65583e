//! Images of containers: their layers unpacked.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vmtest_images::{Digest, ImageSpec, unpack};

use super::{Figure, Pairs, in_turns, run_command};

/// What an image of 200 MB has: most of its files are small, most of its bytes are in large ones.
const SMALL: (usize, usize) = (5000, 16 << 10);
const LARGE: (usize, usize) = (24, 5 << 20);
/// Directories of small files.
const DIRS: usize = 200;

/// Unpacks an image of one layer beside `tar`, which compares nothing with a digest.
pub(super) fn measure(pairs: u32) -> Result<Vec<Figure>, String> {
    let scratch = tempfile::tempdir().map_err(|e| format!("cannot make a directory: {e}"))?;
    let tree = scratch.path().join("tree");
    fill(&tree).map_err(|e| e.to_string())?;
    let (plain, zipped) = (scratch.path().join("layer"), scratch.path().join("layer.gz"));
    tar(&["-c", "-f"], &plain, &tree)?;
    run_command(Command::new("gzip").arg("--keep").arg(&plain))?;
    let diff_id = Digest::of_file(&plain).map_err(|e| e.to_string())?;
    let mut figures = Vec::new();
    for (name, with, layer, extract) in [
        ("200 MB of a container's image unpacked", "tar -x", &plain, "-x"),
        ("the same from gzip", "tar -xz", &zipped, "-xz"),
    ] {
        let image = layout(scratch.path(), layer, &diff_id)?;
        let spec = ImageSpec::from(format!("oci:{}", image.display()).as_str());
        let mut figure = Pairs::default();
        for n in 0..pairs {
            let dirs = ["ours", "theirs"].map(|whose| scratch.path().join(format!("{whose}{n}")));
            dirs.iter().try_for_each(fs::create_dir).map_err(|e| e.to_string())?;
            let ours = || unpack(&spec, &dirs[0]).map_err(|e| e.to_string());
            let theirs = || tar(&[extract, "-p", "-f"], layer, &dirs[1]);
            let [ours, theirs] = in_turns(n, |is_ours| timed(|| if is_ours { ours() } else { theirs() }))?;
            figure.push(ours, theirs);
            dirs.iter().try_for_each(fs::remove_dir_all).map_err(|e| e.to_string())?;
        }
        figures.push(figure.paired(name, with));
        fs::remove_dir_all(image).map_err(|e| e.to_string())?;
    }
    Ok(figures)
}

fn fill(dir: &Path) -> io::Result<()> {
    let mut state = 1_u32;
    for ((files, bytes), name) in [(SMALL, "small"), (LARGE, "large")] {
        for n in 0..files {
            let below = dir.join(format!("{name}{}", n % DIRS));
            fs::create_dir_all(&below)?;
            // Half of it is what a compressor finds, as in programs.
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b'a' + (state >> 28) as u8
            };
            fs::write(below.join(format!("file{n}")), (0..bytes).map(|_| next()).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}

/// An image in the OCI layout of this one layer, which holds what has this digest.
fn layout(scratch: &Path, layer: &Path, diff_id: &Digest) -> Result<PathBuf, String> {
    let dir = scratch.join("layout");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|e| e.to_string())?;
    let add = |file: &Path, kind: &str| -> io::Result<Value> {
        let digest = Digest::of_file(file)?.to_string();
        fs::copy(file, blobs.join(&digest))?;
        let kind = format!("application/vnd.oci.image.{kind}");
        Ok(json!({ "mediaType": kind, "digest": format!("sha256:{digest}"), "size": fs::metadata(file)?.len() }))
    };
    let add_text = |text: &Value, kind: &str| {
        let file = scratch.join("document");
        fs::write(&file, text.to_string())?;
        add(&file, kind)
    };
    let made = || {
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let rootfs = json!({ "type": "layers", "diff_ids": [format!("sha256:{diff_id}")] });
        let config = json!({ "architecture": architecture, "os": "linux", "rootfs": rootfs });
        let config = add_text(&config, "config.v1+json")?;
        let layers = [add(layer, "layer.v1.tar")?];
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let index = json!({ "schemaVersion": 2, "manifests": [add_text(&manifest, "manifest.v1+json")?] });
        fs::write(dir.join("index.json"), index.to_string())
    };
    made().map_err(|e: io::Error| e.to_string())?;
    Ok(dir)
}

fn tar(args: &[&str], archive: &Path, dir: &Path) -> Result<(), String> {
    let mut command = Command::new("tar");
    command.args(args).arg(archive).arg("-C").arg(dir);
    if args[0].starts_with("-c") {
        command.arg(".");
    }
    run_command(&mut command)
}

fn timed(run: impl FnOnce() -> Result<(), String>) -> Result<Duration, String> {
    let started = Instant::now();
    run()?;
    Ok(started.elapsed())
}
