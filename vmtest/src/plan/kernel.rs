//! Which kernel a node boots.

use std::path::Path;

use super::{Facts, ImageFacts, problems::Problems};
use crate::spec::{NodeSettings, NodeSpec};

/// Reports every kernel that cannot be had.
pub(super) fn check(facts: &Facts, problems: &mut Problems) {
    for (path, kernel) in &facts.kernels {
        if let Err(why) = kernel {
            problems.spec(format!("kernel `{}`: {why}", path.display()));
        }
    }
}

/// The kernel of this node, and whether it is of another version than its image's own. `None` if it cannot be had.
pub(super) fn of_node<'a>(
    node: &NodeSpec,
    defaults: &NodeSettings,
    image: &'a ImageFacts,
    facts: &'a Facts,
    problems: &mut Problems,
) -> Option<(&'a Path, bool)> {
    let Some(path) = node.settings.kernel.as_ref().or(defaults.kernel.as_ref()) else {
        return Some((&image.kernel, false));
    };
    let kernel = facts.kernels.get(path)?.as_ref().ok()?;
    let foreign = kernel.release != image.release;
    if foreign && node.settings.nested.or(defaults.nested).unwrap_or_default() {
        problems.spec(format!(
            "node `{}`: `nested` takes modules of the image, which go with its own kernel, {}, and with no other: leave \
             `kernel` out",
            node.name, image.release
        ));
    }
    Some((&kernel.path, foreign))
}
