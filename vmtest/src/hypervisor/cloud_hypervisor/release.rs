//! The release of cloud-hypervisor that can be fetched.

use crate::hypervisor::Release;

/// Its version.
pub(super) const VERSION: &str = "53.0";
/// The project's static binary for x86-64, at the place where it publishes it.
pub(in crate::hypervisor) const RELEASE: Release = Release {
    url: "https://github.com/cloud-hypervisor/cloud-hypervisor/releases/download/v53.0/cloud-hypervisor-static",
    sha256: "448af3d4e59b22c2987f7df94c213ad40fb53a10d437e42b5ee6c4fce7c29ecc",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_can_be_asked_for() {
        assert!(RELEASE.url.contains(&format!("/v{VERSION}/")), "{}", RELEASE.url);
        assert!(vmtest_images::Fetch::new(RELEASE.url, RELEASE.sha256).is_ok());
    }
}
