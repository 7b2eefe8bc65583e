//! Fetches VMMs. Only who asks for it gets one: a test never goes to the network for its VMM.

use std::path::PathBuf;

use vmtest_images::{Cache, Fetch, install};

use super::{progress::BuildProgress, settings::Settings};
use crate::{
    error::{Error, Kind},
    evidence::Event,
    hypervisor::{CLOUD_HYPERVISOR, CLOUD_HYPERVISOR_RELEASE, Release, check_cloud_hypervisor},
};

/// Fetches cloud-hypervisor into the cache, where tests find it that find none on PATH: the release that this version of the
/// library names, or the file at `url` with this SHA-256; of that release too, if only `url` is given. Blocks. Gives its
/// version and its place.
///
/// # Errors
/// [`Kind::Host`] when it cannot be fetched or written, or is not what it should be; [`Kind::Missing`] for a file that is no
/// cloud-hypervisor, or too old; [`Kind::Spec`] for a wrong setting, and for what is no SHA-256.
pub fn install_cloud_hypervisor(url: Option<&str>, sha256: Option<&str>) -> Result<(String, PathBuf), Error> {
    let Release { url: theirs, sha256: of_theirs } = CLOUD_HYPERVISOR_RELEASE;
    let settings = Settings::get()?;
    let failed = |e: vmtest_images::Error| match e {
        vmtest_images::Error::NoDigest { .. } => Error::new(Kind::Spec, e.to_string()),
        _ => Error::new(Kind::Host, chain(&e)),
    };
    let fetch = Fetch::new(url.unwrap_or(theirs), sha256.unwrap_or(of_theirs)).map_err(failed)?.executable();
    let cache = Cache::open(settings.cache_dir()).map_err(failed)?;
    let event = |what: &str, percent| Event::Image { what: what.to_owned(), percent };
    let progress = BuildProgress::new(None, CLOUD_HYPERVISOR.to_owned(), &event);
    let program = fetch.run(&cache, &progress).map_err(failed)?;
    let version = check_cloud_hypervisor(&program)?;
    Ok((version, install(&cache, CLOUD_HYPERVISOR, &program).map_err(failed)?))
}

/// An error with what has caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
