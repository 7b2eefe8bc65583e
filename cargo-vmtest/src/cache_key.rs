//! `cargo vmtest cache-key`: names what a CI keeps of `~/.cache/vmtest` from one run to the next.

use std::{collections::BTreeSet, fs, process::ExitCode};

use vmtest_images::ImageSpec;

use super::output::line;

/// Prints the key of a cache that has these images.
pub(crate) fn run(images: &[String]) -> Result<ExitCode, String> {
    line(of(&images.iter().map(|name| name.as_str().into()).collect())?);
    Ok(ExitCode::SUCCESS)
}

/// Follows how the images are made, of which release's packages, and for which machine; not the versions of the packages:
/// who wants newer ones removes the cache.
pub(crate) fn of(images: &BTreeSet<ImageSpec>) -> Result<String, String> {
    let mut hash = blake3::Hasher::new();
    for image in images {
        let recipe = image.recipe_key().map_err(|e| e.to_string())?;
        hash.update(image.name.as_bytes()).update(b"\0").update(recipe.as_bytes()).update(b"\0");
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    Ok(format!("vmtest-{}-{}-{}", os(&release), std::env::consts::ARCH, &hash.finalize().to_hex()[..16]))
}

/// `debian-12`
fn os(release: &str) -> String {
    let value = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    let id = value("ID").unwrap_or_else(|| "linux".to_owned());
    value("VERSION_ID").map_or_else(|| id.clone(), |version| format!("{id}-{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_names_the_system_and_follows_the_images() {
        assert_eq!(os("NAME=\"x\"\nVERSION_ID=\"12\"\nID=debian\n"), "debian-12");
        assert_eq!(os("ID=arch\n"), "arch");
        let key = |names: &[&str]| of(&names.iter().map(|&name| name.into()).collect()).unwrap();
        assert_ne!(key(&["micro"]), key(&["micro", "debian-12"]));
        assert_eq!(key(&["micro"]), key(&["micro"]));
        assert!(of(&["mikro".into()].into()).unwrap_err().contains("there is no image `mikro`"));
    }
}
