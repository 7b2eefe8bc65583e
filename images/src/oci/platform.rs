//! Which of the images behind a name is for this machine.

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;

use super::Wrong;

/// The architecture of this machine as images name it.
const ARCHITECTURE: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
/// The variant of it that every such machine runs.
const VARIANT: Option<&str> = if cfg!(target_arch = "aarch64") { Some("v8") } else { None };
/// Indices in indices, of which nobody needs two.
const DEEPEST: u32 = 4;
/// What those images are for that are none, but say something of the others.
const UNKNOWN: &str = "unknown";

/// An image that this machine can run.
pub(super) struct Found {
    /// Identifies all of it: the digest of its manifest.
    pub(super) digest: String,
    pub(super) layers: Vec<Descriptor>,
    /// Says of each layer what it holds.
    pub(super) configuration: ImageConfiguration,
}

/// The one of these that this machine can run. `names` are those of all, for people; `document` reads one of what they name.
pub(super) fn choose<E: From<Wrong>>(
    all: &[&Descriptor],
    names: &dyn Fn() -> String,
    document: &dyn Fn(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Found, E> {
    choose_below(all, 0, names, document)
}

fn choose_below<E: From<Wrong>>(
    all: &[&Descriptor],
    depth: u32,
    names: &dyn Fn() -> String,
    document: &dyn Fn(&Descriptor) -> Result<Vec<u8>, E>,
) -> Result<Found, E> {
    let one = only(all, names)?;
    let kind = one.media_type().to_string();
    if kind.contains("index") || kind.contains("manifest.list") {
        if depth == DEEPEST {
            return Err(Wrong::new("its index names indices without end".to_owned()).into());
        }
        let index: ImageIndex = parse(one, &document(one)?)?;
        return choose_below(&index.manifests().iter().collect::<Vec<_>>(), depth + 1, names, document);
    }
    let manifest: ImageManifest = parse(one, &document(one)?)?;
    let configuration: ImageConfiguration = parse(manifest.config(), &document(manifest.config())?)?;
    let (os, architecture) = (configuration.os().to_string(), configuration.architecture().to_string());
    if (os.as_str(), architecture.as_str()) != ("linux", ARCHITECTURE) {
        return Err(
            Wrong::new(format!("it is for {os}/{architecture}, and this machine is linux/{ARCHITECTURE}")).into()
        );
    }
    let (said, layers) = (configuration.rootfs().diff_ids().len(), manifest.layers().len());
    if said != layers {
        return Err(Wrong::new(format!(
            "its manifest has {layers} layers, and its configuration says of {said} what they hold"
        ))
        .into());
    }
    Ok(Found { digest: one.digest().to_string(), layers: manifest.layers().clone(), configuration })
}

/// The one of these descriptors that is for this machine.
fn only<'a>(all: &[&'a Descriptor], names: &dyn Fn() -> String) -> Result<&'a Descriptor, Wrong> {
    let runs = |image: &&&Descriptor| match image.platform() {
        Some(platform) => platform.os().to_string() == "linux" && platform.architecture().to_string() == ARCHITECTURE,
        None => true,
    };
    let found: Vec<_> = all.iter().filter(runs).collect();
    let usual: Vec<_> = found.iter().filter(|image| variant(image) == VARIANT).collect();
    match (found.as_slice(), usual.as_slice()) {
        ([one], _) => Ok(one),
        // Newer processors run the others too, and those of a test need not be newer.
        (_, [one]) if found.iter().all(|image| image.platform().is_some()) => Ok(one),
        ([], _) => {
            let platforms: Vec<_> = all.iter().filter_map(|image| platform(image)).collect();
            let there = if platforms.is_empty() { "none at all".to_owned() } else { platforms.join(", ") };
            Err(Wrong::new(format!("none of its images is for linux/{ARCHITECTURE}; there are: {there}")))
        }
        _ => Err(Wrong::new(format!(
            "it has several images: put a colon and the name of one behind the path. They are: {}",
            names()
        ))),
    }
}

fn variant(image: &Descriptor) -> Option<&str> {
    image.platform().as_ref()?.variant().as_deref()
}

/// `linux/arm64/v8`; none of what is no image.
fn platform(image: &Descriptor) -> Option<String> {
    let platform = image.platform().as_ref()?;
    let variant = variant(image).map(|variant| format!("/{variant}")).unwrap_or_default();
    let os = platform.os().to_string();
    (os != UNKNOWN).then(|| format!("{os}/{}{variant}", platform.architecture()))
}

fn parse<T: DeserializeOwned>(descriptor: &Descriptor, text: &[u8]) -> Result<T, Wrong> {
    serde_json::from_slice(text)
        .map_err(|e| Wrong::new(format!("{} is not what it should be: {e}", descriptor.digest())))
}
