//! Kernels that have a name and that machines boot in place of their image's own: a package of the distribution, or one of our own
//! configuration.
//!
//! The cache keeps them as it keeps images. In place of an initramfs they have an archive that goes behind that of an image:
//! their modules, and which of them are loaded.

mod file;
mod package;
mod small;

use std::path::Path;

pub use file::kernel_release;
pub(crate) use package::with_modules;

use crate::{Error, ImageSpec, Progress, Result, image::Built, key::short};

/// What the names of kernels begin with among those of images.
const PREFIX: &str = "kernel:";
/// The kernel of our own configuration.
const SMALL: &str = "small";
/// What the names of packages with kernels begin with, of Debian and Ubuntu.
const PACKAGE: &str = "linux-image-";

/// What this is called in the cache, if it is the name of a kernel and not the path of one.
pub fn kernel_by_name(text: &Path) -> Option<ImageSpec> {
    let name = text.to_str()?;
    let is_name = name == SMALL || (name.starts_with(PACKAGE) && !name.contains('/'));
    is_name.then(|| ImageSpec::from(format!("{PREFIX}{name}").as_str()))
}

/// A kernel that is asked for by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Small,
    Package(String),
}

impl Request {
    /// The kernel that an image of this name is, if it is one.
    pub(crate) fn read(image: &str) -> Option<Result<Self>> {
        let name = image.strip_prefix(PREFIX)?;
        Some(match name {
            SMALL => Ok(Self::Small),
            _ if name.starts_with(PACKAGE) => Ok(Self::Package(name.to_owned())),
            _ => {
                let why = format!("a kernel is `{PREFIX}{SMALL}`, or `{PREFIX}` and a package as `{PACKAGE}amd64`");
                Err(Error::Refused { image: image.to_owned(), why })
            }
        })
    }

    /// Identifies how it is made.
    pub(crate) fn key(&self) -> String {
        short(match self {
            Self::Small => small::recipe(),
            Self::Package(name) => package::recipe(name),
        })
    }

    /// Makes it in a directory that is removed with everything else in it afterwards.
    pub(crate) fn build(&self, work: &Path, progress: &dyn Progress) -> Result<Built> {
        match self {
            Self::Small => small::build(work, progress),
            Self::Package(name) => package::build(name, work, progress),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_no_path() {
        let name = |text: &str| kernel_by_name(Path::new(text)).map(|spec| spec.name);
        assert_eq!(name("small").as_deref(), Some("kernel:small"));
        assert_eq!(name("linux-image-rt-amd64").as_deref(), Some("kernel:linux-image-rt-amd64"));
        for path in ["./small", "tests/bzImage", "linux-image-6.1/bzImage", "bzImage", "/boot/vmlinuz"] {
            assert_eq!(name(path), None, "{path}");
        }
    }

    #[test]
    fn each_kernel_has_a_key_of_its_own() {
        let key = |name: &str| Request::read(name).expect("it is a kernel").expect("it can be made").key();
        let keys = ["kernel:small", "kernel:linux-image-amd64", "kernel:linux-image-rt-amd64"].map(key);
        assert!(keys[0] != keys[1] && keys[1] != keys[2], "{keys:?}");
        assert!(Request::read("micro").is_none());
        let wrong = Request::read("kernel:bsd").expect("it is a kernel").expect_err("there is none").to_string();
        assert!(wrong.contains("a kernel is `kernel:small`, or `kernel:` and a package"), "{wrong}");
    }
}
