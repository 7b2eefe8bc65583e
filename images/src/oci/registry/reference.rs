//! Names of images in registries.

use std::net::Ipv4Addr;

use oci_spec::distribution::Reference;
use ureq::http::Uri;

/// The registry of names that name none, and what it was called once.
const USUAL: &str = "docker.io";
const USUAL_ONCE: &str = "index.docker.io";
/// Where it has the images of names without a slash.
const OFFICIAL: &str = "library/";

/// The name with what it leaves out: `docker.io/library/nginx:latest` of `nginx`. It is as [`Reference`] has it, which takes
/// fifty milliseconds in a debug build to say that, and may be none at all.
pub(crate) fn whole(name: &str) -> String {
    let (registry, rest) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (USUAL, name),
    };
    let registry = if registry == USUAL_ONCE { USUAL } else { registry };
    let official = if registry == USUAL && !rest.contains('/') { OFFICIAL } else { "" };
    let tag = if rest.contains(['@', ':']) { "" } else { ":latest" };
    format!("{registry}/{official}{rest}{tag}")
}

/// Reads such a name.
///
/// # Errors
/// Why it is none, as the end of a sentence about it.
pub(super) fn parse(name: &str) -> Result<Reference, String> {
    name.parse().map_err(|e| {
        format!("{e}: write it as `docker://registry.example:5000/repository:tag`, or with `@sha256:` and a digest in place of `:tag`")
    })
}

/// Whether its registry is on this machine, and nobody is between.
pub(super) fn is_local(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host);
    host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

/// Whether nobody else reads what goes there: it is encrypted, or stays on this machine.
pub(super) fn is_private(uri: &Uri) -> bool {
    uri.scheme_str() == Some("https") || uri.authority().is_some_and(|authority| is_local(authority.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_name_is_that_of_its_whole_one() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for name in [
            "nginx",
            "nginx:1.27",
            "library/nginx",
            "docker.io/nginx",
            "index.docker.io/nginx:1",
            "docker.io/library/nginx:1.27",
            "localhost/web",
            "localhost:5000/web:2",
            "127.0.0.1:5000/a/b",
            "quay.example/a/b/c:d_e",
            &format!("nginx@{digest}"),
            &format!("registry.example:5000/a/b:1@{digest}"),
        ] {
            let reference = parse(name).unwrap();
            assert_eq!(whole(name), reference.whole(), "{name}");
            assert_eq!(whole(&whole(name)), whole(name));
        }
    }

    #[test]
    fn what_is_no_name_says_how_one_is_written() {
        for name in ["", "https://registry.example/web", "registry.example/web:", "a:b@c", "user:secret@host/web"] {
            assert!(parse(name).unwrap_err().ends_with("in place of `:tag`"), "{name}");
        }
    }

    #[test]
    fn only_this_machine_is_asked_without_encryption() {
        for (registry, local) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.1.2.3", true),
            ("10.0.0.1:5000", false),
            ("registry.example", false),
            ("localhost.example", false),
            ("127.0.0.1.example:80", false),
        ] {
            assert_eq!(is_local(registry), local, "{registry}");
        }
    }
}
