//! Which kernel a node boots.

use std::path::Path;

use super::{Facts, ImageFacts, problems::Problems};
use crate::spec::{NodeSettings, NodeSpec};

/// Reports every kernel and every firmware that cannot be had.
pub(super) fn check(facts: &Facts, problems: &mut Problems) {
    for (path, kernel) in &facts.kernels {
        if let Err(why) = kernel {
            problems.spec(format!("kernel `{}`: {why}", path.display()));
        }
    }
    for (name, firmware) in &facts.firmwares {
        if let Err(why) = firmware {
            problems.missing(format!("firmware `{}`: {why}", name.display()));
        }
    }
}

/// What a node boots.
pub(super) struct KernelOfNode<'a> {
    pub(super) path: &'a Path,
    /// Whether it is of another version than the image's own, whose modules do not go with it.
    pub(super) foreign: bool,
    /// The archive with its own modules, if it has any.
    pub(super) modules: Option<&'a Path>,
}

/// The kernel of this node. `None` if it cannot be had.
pub(super) fn of_node<'a>(
    node: &NodeSpec,
    defaults: &NodeSettings,
    image: &'a ImageFacts,
    facts: &'a Facts,
    problems: &mut Problems,
) -> Option<KernelOfNode<'a>> {
    let Some(path) = node.settings.kernel.as_ref().or(defaults.kernel.as_ref()) else {
        return Some(KernelOfNode { path: &image.kernel, foreign: false, modules: None });
    };
    if image.cloud.is_some() && node.settings.firmware.as_ref().or(defaults.firmware.as_ref()).is_none() {
        problems.spec(format!(
            "node `{}`: `kernel` boots with the initramfs of the framework, and a cloud image has its own, which goes with its \
             kernel, {}: leave `kernel` out",
            node.name, image.release
        ));
    }
    let kernel = facts.kernels.get(path)?.as_ref().ok()?;
    let nested = node.settings.nested.or(defaults.nested).unwrap_or_default();
    if let Some(modules) = &kernel.modules {
        let modules: &Path = if nested { &modules.nested } else { &modules.usual };
        return Some(KernelOfNode { path: &kernel.path, foreign: false, modules: Some(modules) });
    }
    let foreign = kernel.release != image.release;
    if foreign && nested {
        problems.spec(format!(
            "node `{}`: `nested` takes modules of the image, which go with its own kernel, {}, and with no other: leave \
             `kernel` out",
            node.name, image.release
        ));
    }
    Some(KernelOfNode { path: &kernel.path, foreign, modules: None })
}
