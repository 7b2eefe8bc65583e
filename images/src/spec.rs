//! What is asked of an image.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{Error, OwnImage, Result, cloud, debian, image::MICRO, kernels, micro, oci};

/// An image as it is asked for: by its name, and with what shall be in it beside its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageSpec {
    /// One of [`known`](crate::known); what [`kernel_by_name`](crate::kernel_by_name) says of a kernel; `oci:` and the path of a
    /// container's image in the OCI layout, with the name of one image of it behind a colon where there are several;
    /// `docker://` and the name of such an image in a registry; or `cloud:` and the name of a cloud image in a
    /// [catalog](crate::catalogued), the path of one, or its address with its digest: `cloud:https://host/disk.qcow2#sha256=` and
    /// 64 hexadecimal digits, or `#sha512=` and 128.
    pub name: String,
    /// Packages of its distribution that it has beside its own, with all that they depend on.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub packages: BTreeSet<String>,
    /// A program that runs once inside of it, as root, when all packages are there. Its content tells images apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare: Option<PathBuf>,
    /// How an image is made that this crate knows nothing of; its name is the image's then.
    #[serde(skip)]
    pub own: Option<OwnImage>,
}

impl From<&str> for ImageSpec {
    fn from(name: &str) -> Self {
        Self { name: name.to_owned(), packages: BTreeSet::new(), prepare: None, own: None }
    }
}

impl From<OwnImage> for ImageSpec {
    fn from(own: OwnImage) -> Self {
        Self { own: Some(own.clone()), ..Self::from(&*own.name()) }
    }
}

/// `debian-12 with etcd-server and setup.sh`
impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let script = self.prepare.as_deref().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let more: Vec<_> = self.packages.iter().cloned().chain(script).collect();
        if more.is_empty() { Ok(()) } else { write!(f, " with {}", more.join(", ")) }
    }
}

/// The recipe that an image is made by, with all that is known before it is made.
pub(crate) enum Recipe {
    Micro,
    Debian(debian::Request),
    Oci(Box<oci::Request>),
    Kernel(kernels::Request),
    Cloud(Box<cloud::Request>),
    /// An image of a registry, by its whole name: what it stands for is asked only when it is made.
    Registry(String),
    /// One that somebody else makes, with its key.
    Own(Box<OwnImage>, String),
}

impl ImageSpec {
    /// Whether a machine can run it that has no kernel of its own.
    pub fn needs_no_kernel(&self) -> bool {
        self.name == MICRO
    }

    /// The same with a path in its name seen from this directory.
    #[must_use]
    pub fn seen_from(mut self, base: &Path) -> Self {
        let of_prefix = |prefix: &'static str| self.name.strip_prefix(prefix).map(|path| (prefix, path));
        let path = of_prefix(oci::PREFIX).or_else(|| of_prefix(cloud::PREFIX).filter(|(_, text)| cloud::is_path(text)));
        if let Some((prefix, path)) = path {
            self.name = format!("{prefix}{}", base.join(path).display());
        }
        self
    }

    /// Its name with what that leaves out: that of `docker://nginx` is `docker://docker.io/library/nginx:latest`.
    pub fn whole_name(&self) -> String {
        match self.name.strip_prefix(oci::REGISTRY) {
            Some(name) => format!("{}{}", oci::REGISTRY, oci::whole(name)),
            None => self.name.clone(),
        }
    }

    /// What kind of image it is, in the names of files.
    pub(crate) fn kind(&self) -> String {
        match self.name.split_once(':') {
            _ if self.is_container() => "oci".to_owned(),
            _ if self.own.is_some() => "own".to_owned(),
            Some((kind @ "cloud", _)) => kind.to_owned(),
            _ => self.name.replace(':', "-"),
        }
    }

    /// Whether it is a kernel that other images are booted with, and no machine.
    pub fn is_kernel(&self) -> bool {
        kernels::Request::read(&self.name).is_some()
    }

    fn is_container(&self) -> bool {
        self.name.starts_with(oci::PREFIX) || self.name.starts_with(oci::REGISTRY)
    }

    /// Identifies how it is made, which includes the content of what prepares it.
    ///
    /// # Errors
    /// [`Error::Unknown`], or why the image cannot be as it was asked for.
    pub fn recipe_key(&self) -> Result<String> {
        Ok(self.recipe()?.key())
    }

    /// The memory in bytes of a machine that says nothing, as far as this image knows: what
    /// [`Image::memory`](crate::Image::memory) will be.
    pub fn usual_memory(&self) -> Option<u64> {
        let cloud = self.name.starts_with(cloud::PREFIX).then_some(cloud::MEMORY);
        cloud.or_else(|| debian::release(&self.name).map(|_| debian::MEMORY))
    }

    /// # Errors
    /// [`Error::Unknown`], or why the image cannot be as it was asked for.
    pub(crate) fn recipe(&self) -> Result<Recipe> {
        let more = !self.packages.is_empty() || self.prepare.is_some();
        let as_it_is = |why: &str| if more { Err(Error::refused(self, why)) } else { Ok(()) };
        if self.name == MICRO {
            as_it_is("it has no package manager and nothing that lasts: take `debian-12`")?;
            return Ok(Recipe::Micro);
        }
        if let Some(own) = &self.own {
            as_it_is("whoever makes it adds what it has")?;
            let key = own.key().map_err(|why| Error::refused(self, why))?;
            return Ok(Recipe::Own(own.clone().into(), key));
        }
        if self.is_container() {
            as_it_is("nothing is added to the image of a container: make one that has it")?;
            return Ok(match self.name.strip_prefix(oci::REGISTRY) {
                Some(name) => Recipe::Registry(oci::whole(name)),
                None => Recipe::Oci(oci::Request::read(&self.name)?.into()),
            });
        }
        if let Some(kernel) = kernels::Request::read(&self.name) {
            as_it_is("nothing is added to a kernel")?;
            return kernel.map(Recipe::Kernel);
        }
        if self.name.starts_with(cloud::PREFIX) {
            as_it_is("nothing is added to a cloud image: install it in the test, or make an image that has it")?;
            return Ok(Recipe::Cloud(cloud::Request::read(&self.name)?.into()));
        }
        let Some(release) = debian::release(&self.name) else {
            return Err(self.unknown());
        };
        if let Some(package) = self.packages.iter().find(|package| !is_package(package)) {
            return Err(Error::refused(self, &format!("`{package}` is no name of a package")));
        }
        let read = |path: &PathBuf| fs::read(path).map_err(Error::file("read", path));
        let script = self.prepare.as_ref().map(read).transpose()?;
        if script.as_ref().is_some_and(|script| !script.starts_with(b"#!")) {
            let why = "the first line of what prepares it must name its interpreter, as `#!/bin/sh` does";
            return Err(Error::refused(self, why));
        }
        Ok(Recipe::Debian(debian::Request { release, packages: self.packages.clone(), script }))
    }

    /// That there is none of this name, with those that it may have been meant to be.
    fn unknown(&self) -> Error {
        let name = self.name.clone();
        let others = if cloud::is_in_catalog(&name) {
            format!("the catalog has `{}{name}`", cloud::PREFIX)
        } else {
            format!(
                "`{}{name}` would be that of a registry, `{}` stands before names of the catalog, addresses and paths of disks, \
                 and `{}` before paths of containers' images",
                oci::REGISTRY,
                cloud::PREFIX,
                oci::PREFIX
            )
        };
        Error::Unknown { name, known: format!("{}; {others}", crate::known().join(", ")) }
    }
}

impl Recipe {
    /// Identifies all of it, in the names of files.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Micro => micro::recipe(),
            Self::Debian(request) => request.key(),
            Self::Oci(request) => request.key(),
            Self::Kernel(request) => request.key(),
            Self::Cloud(request) => request.recipe(),
            Self::Registry(name) => oci::recipe(name),
            Self::Own(_, key) => key.clone(),
        }
    }
}

/// As Debian's policy has it.
fn is_package(name: &str) -> bool {
    let ok = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    name.len() > 1 && name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian(packages: &[&str], script: Option<&[u8]>) -> Result<String> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let prepare = script.map(|content| {
            fs::write(dir.path().join("setup.sh"), content).expect("it can be written");
            dir.path().join("setup.sh")
        });
        let packages = packages.iter().map(|&name| name.to_owned()).collect();
        ImageSpec { packages, prepare, ..ImageSpec::from("debian-12") }.recipe().map(|recipe| recipe.key())
    }

    #[test]
    fn the_key_follows_everything_that_is_asked_for() {
        let key = |packages, script| debian(packages, script).expect("it can be made");
        let keys = [
            key(&[], None),
            key(&["etcd-server"], None),
            key(&["postgresql"], None),
            key(&["etcd-server", "postgresql"], None),
            key(&[], Some(b"#!/bin/sh\n")),
            key(&[], Some(b"#!/bin/sh\ntrue\n")),
            ImageSpec::from("debian-13").recipe().expect("it is known").key(),
        ];
        let different: BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len(), "{keys:?}");
        assert_eq!(key(&["postgresql", "etcd-server"], None), keys[3], "the order says nothing");
    }

    #[test]
    fn what_cannot_be_made_says_why() {
        let said = |result: Result<String>| result.expect_err("it cannot be made").to_string();
        for name in ["--hook", "a,b", "a b", "A", "x", ""] {
            assert!(said(debian(&[name], None)).ends_with(&format!("`{name}` is no name of a package")));
        }
        assert!(said(debian(&[], Some(b"true"))).contains("must name its interpreter"));
        let micro = ImageSpec { packages: ["curl".to_owned()].into(), ..ImageSpec::from("micro") };
        let error = micro.recipe().map(|recipe| recipe.key());
        assert!(said(error).starts_with("`micro with curl` cannot be made: it has no package manager"));
    }

    #[test]
    fn an_image_of_a_registry_is_known_by_its_whole_name_before_anybody_is_asked() {
        let key = |name: &str| ImageSpec::from(name).recipe_key().expect("nothing is read for it");
        let whole = "docker://docker.io/library/nginx:latest";
        assert_eq!(ImageSpec::from("docker://nginx").whole_name(), whole);
        assert_eq!(key("docker://nginx"), key(whole));
        assert_ne!(key("docker://nginx:1"), key(whole));
        let more = ImageSpec { packages: ["curl".to_owned()].into(), ..ImageSpec::from("docker://nginx") };
        let error = more.recipe().map(|recipe| recipe.key()).expect_err("it cannot be made").to_string();
        assert!(error.ends_with("nothing is added to the image of a container: make one that has it"), "{error}");
    }

    #[test]
    fn people_read_what_is_in_it() {
        let spec = ImageSpec {
            packages: ["b".to_owned(), "a".to_owned()].into(),
            prepare: Some("/src/setup.sh".into()),
            ..ImageSpec::from("debian-12")
        };
        assert_eq!(spec.to_string(), "debian-12 with a, b, setup.sh");
        assert_eq!(ImageSpec::from("micro").to_string(), "micro");
    }
}
