//! `cargo vmtest cp`.

use std::{path::Path, process::ExitCode};

use vmtest::harness::control::Request;

use super::target::Target;

/// Copies a file or a tree between the host and a machine, whose paths are written `node:path`.
pub(crate) fn run(from: &str, to: &str) -> Result<ExitCode, String> {
    let (target, request) = match (remote(from), remote(to)) {
        (None, Some((node, path))) => {
            let (from, to, target) = (absolute(from)?, within(path, from), Target::find(node)?);
            let node = target.node.name.clone();
            (target, Request::Upload { node, from, to })
        }
        (Some((node, path)), None) => {
            let (from, to) = (path.to_owned(), absolute(&within(&as_directory(to), path))?);
            let target = Target::find(node)?;
            let node = target.node.name.clone();
            (target, Request::Download { node, from, to })
        }
        (None, None) => return Err("one of both must be on a machine: write it as `node:path`".into()),
        (Some(_), Some(_)) => {
            return Err("one of both must be on this host: copy here first, and from here to the other machine".into());
        }
    };
    target.client()?.ask(&request).map_err(|e| e.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// The machine and the path there. As with `scp`, a colon behind a slash belongs to a path of this host.
fn remote(path: &str) -> Option<(&str, &str)> {
    if path.starts_with(['/', '.']) {
        return None;
    }
    let (node, path) = path.split_once(':')?;
    // A run and a machine have one slash in between.
    (node.matches('/').count() <= 1).then_some((node, path))
}

/// A directory of this host, written as one.
fn as_directory(place: &str) -> String {
    if Path::new(place).is_dir() { format!("{place}/") } else { place.to_owned() }
}

/// A place that ends in a slash keeps the name of what is copied there.
fn within(place: &str, what: &str) -> String {
    let name = Path::new(what.split_once(':').map_or(what, |(_, path)| path)).file_name().unwrap_or_default();
    if place.ends_with('/') { Path::new(place).join(name).to_string_lossy().into_owned() } else { place.to_owned() }
}

/// The owner of the run works in a directory of its own.
fn absolute(path: &str) -> Result<std::path::PathBuf, String> {
    std::path::absolute(path).map_err(|e| format!("{path}: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_on_machines_are_told_from_those_on_the_host() {
        assert_eq!(remote("alice:/etc/hosts"), Some(("alice", "/etc/hosts")));
        assert_eq!(remote("54f0/alice:x"), Some(("54f0/alice", "x")));
        for here in ["file", "/tmp/a:b", "./a:b", "a/b/c:d"] {
            assert_eq!(remote(here), None, "{here}");
        }
    }

    #[test]
    fn a_directory_keeps_the_name() {
        assert_eq!(within("/srv/", "data/www"), "/srv/www");
        assert_eq!(within(&as_directory("."), "/etc/hosts"), "./hosts");
        assert_eq!(within("/srv/www", "data/www"), "/srv/www");
    }
}
