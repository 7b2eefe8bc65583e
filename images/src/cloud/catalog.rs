//! Cloud images by name: what is known of each, in `catalog.json` beside this file and in a file of the user's own.

use std::{
    env::consts::ARCH,
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use serde::{Deserialize, Serialize};

use super::{PREFIX, date::Date, key_of, publisher::Publisher};
use crate::{Cache, Digest, Error, Fetch, ImageSpec, Result, image::place, kept, key::short};

/// The setting that says where the user's own catalog is.
pub const CATALOG: &str = "VMTEST_CATALOG";
/// The form of a catalog's file, raised when it changes.
const VERSION: u32 = 1;
/// Ours, which `cargo vmtest image bump --catalog` of this file writes anew.
const OURS: &str = include_str!("catalog.json");

/// Cloud images by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalog {
    version: u32,
    images: Vec<CatalogEntry>,
}

/// One image of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct CatalogEntry {
    /// What stands behind `cloud:`: letters, digits, and `.`, `_`, `+` and `-`.
    pub name: String,
    /// The architecture of its machines, such as `x86_64`.
    pub architecture: String,
    /// Its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What the publisher says that its digest is. Without, it cannot be fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// When it was built or published, as far as that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<Date>,
    /// The account by which its machines are reached, where root is not let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// A command that has to succeed before a machine of it counts as ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,
    /// How a newer one is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bump: Option<Publisher>,
}

impl CatalogEntry {
    /// Whether it stands for the same as another one.
    pub(super) fn is_named_as(&self, other: &Self) -> bool {
        (&self.name, &self.architecture) == (&other.name, &other.architecture)
    }

    /// Tells apart what is made of the file with this digest: another entry may say something else about its machines.
    pub(super) fn key(&self, digest: Digest) -> String {
        let Self { login, ready, .. } = self;
        if login.is_none() && ready.is_none() {
            return key_of(digest);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(format!("{} {login:?} {ready:?}", key_of(digest)).as_bytes());
        short(hasher.finalize())
    }
}

impl Catalog {
    /// One without images.
    pub fn empty() -> Self {
        Self { version: VERSION, images: Vec::new() }
    }

    /// The one that comes with this crate.
    pub fn ours() -> &'static Self {
        static PARSED: LazyLock<Catalog> =
            LazyLock::new(|| Catalog::parse(OURS, Path::new("catalog.json")).expect("a test reads it"));
        &PARSED
    }

    /// The one in a file.
    ///
    /// # Errors
    /// [`Error::Catalog`] with the line that is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(|e| {
            let remedy = match e.kind() {
                io::ErrorKind::NotFound => {
                    format!(": `cargo vmtest image bump debian-12 --catalog {}` begins one", path.display())
                }
                _ => String::new(),
            };
            Error::Catalog { at: path.display().to_string(), what: "read", why: format!("{e}{remedy}") }
        })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self> {
        let wrong =
            |line: usize, why: String| Error::Catalog { at: format!("{}:{line}", path.display()), what: "read", why };
        let catalog: Self = serde_json::from_str(text).map_err(|e| {
            let why = e.to_string();
            wrong(e.line(), why.split(" at line ").next().unwrap_or_default().to_owned())
        })?;
        // Of several with the same name, the last.
        let line = |name: &str| {
            let name = serde_json::to_string(name).unwrap_or_default();
            text.lines().enumerate().filter(|(_, line)| line.contains(&name)).map(|(line, _)| line + 1).last()
        };
        if catalog.version != VERSION {
            let why = format!("it has the form {}, and this version of vmtest reads {VERSION}", catalog.version);
            return Err(wrong(line("version").unwrap_or(1), why));
        }
        for (number, entry) in catalog.images.iter().enumerate() {
            let name = &entry.name;
            let at = line(name).unwrap_or(1);
            if !is_name(name) {
                let why = format!("`{name}` is no name: take letters, digits, and `.`, `_`, `+` and `-`");
                return Err(wrong(at, why));
            }
            if catalog.images[..number].iter().any(|other| other.is_named_as(entry)) {
                return Err(wrong(at, format!("`{name}` for {} is there twice", entry.architecture)));
            }
        }
        Ok(catalog)
    }

    /// Its images, in the order of its file.
    pub fn images(&self) -> &[CatalogEntry] {
        &self.images
    }

    pub(super) fn images_mut(&mut self) -> &mut Vec<CatalogEntry> {
        &mut self.images
    }

    /// Puts it into a file, by name, all at once: whoever reads that meanwhile has the one from before.
    ///
    /// # Errors
    /// [`Error::Catalog`]
    pub fn write(&self, path: &Path) -> Result<()> {
        let write = || -> io::Result<()> {
            // A link stays one.
            let place = fs::canonicalize(path).or_else(|_| std::path::absolute(path))?;
            let mode = fs::metadata(&place).map_or(0o644, |meta| meta.permissions().mode());
            let mut file = tempfile::NamedTempFile::new_in(place.parent().unwrap_or(Path::new("/")))?;
            file.write_all(self.text().as_bytes())?;
            file.as_file().set_permissions(Permissions::from_mode(mode))?;
            file.as_file().sync_all()?;
            file.persist(&place).map_err(|e| e.error)?;
            Ok(())
        };
        let at = path.display().to_string();
        write().map_err(|e| Error::Catalog { at, what: "written", why: e.to_string() })
    }

    /// The content of its file.
    fn text(&self) -> String {
        let mut sorted = self.clone();
        sorted.images.sort_by(|a, b| (&a.name, &a.architecture).cmp(&(&b.name, &b.architecture)));
        let text = serde_json::to_string_pretty(&sorted).expect("a catalog is plain data");
        format!("{text}\n")
    }
}

/// Whether this can be the name of an image: one that is neither a path with directories nor an address.
fn is_name(text: &str) -> bool {
    let ok = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(ok)
}

/// An image that can be named, and where that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Catalogued {
    /// The image.
    pub entry: CatalogEntry,
    /// The user's own catalog, or ours.
    pub catalog: Option<PathBuf>,
}

impl Catalogued {
    /// Whether this image is in the cache, under whatever name it was asked for.
    ///
    /// # Errors
    /// When the cache cannot be read.
    pub fn is_cached(&self, cache: &Cache) -> Result<bool> {
        let Some(digest) = self.entry.digest else { return Ok(false) };
        let spec = ImageSpec::from(format!("{PREFIX}{}", self.entry.name).as_str());
        Ok(kept::recorded(cache, &place(cache, &spec, &self.entry.key(digest)))?.is_some())
    }

    /// Its file, as far as that is known.
    pub(super) fn fetch(&self) -> Option<Fetch> {
        Some(Fetch::known(self.entry.url.as_ref()?, self.entry.digest?))
    }

    /// What finds the newest build of it.
    pub(super) fn remedy(&self) -> String {
        let name = &self.entry.name;
        match &self.catalog {
            Some(path) => format!("`cargo vmtest image bump {name} --catalog {}` finds the newest one", path.display()),
            None => format!(
                "`cargo vmtest image bump {name} --catalog FILE` writes the newest one into a catalog of your own, which \
                 {CATALOG} names"
            ),
        }
    }
}

/// The file of the user's own catalog, as [`CATALOG`] says.
pub fn catalog_file() -> Option<PathBuf> {
    std::env::var_os(CATALOG).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// All images that can be named, by name: those of the user's own catalog, and those of ours that it does not have.
///
/// # Errors
/// [`Error::Catalog`] where the user's own cannot be read.
pub fn catalogued() -> Result<Vec<Catalogued>> {
    merged(catalog_file())
}

fn merged(own: Option<PathBuf>) -> Result<Vec<Catalogued>> {
    let mut all = Vec::new();
    if let Some(path) = own {
        let images = Catalog::read(&path)?.images.into_iter();
        all.extend(images.map(|entry| Catalogued { entry, catalog: Some(path.clone()) }));
    }
    for entry in Catalog::ours().images() {
        if !all.iter().any(|known| known.entry.is_named_as(entry)) {
            all.push(Catalogued { entry: entry.clone(), catalog: None });
        }
    }
    all.sort_by(|a, b| (&a.entry.name, &a.entry.architecture).cmp(&(&b.entry.name, &b.entry.architecture)));
    Ok(all)
}

/// Whether a catalog has an image of this name, or cannot be read: who makes the image says why.
pub(super) fn has(name: &str) -> bool {
    !matches!(find(name), Ok(None))
}

/// The image of this name for machines of this architecture.
///
/// # Errors
/// [`Error::Catalog`], or [`Error::Refused`] where it is for others only.
pub(super) fn find(name: &str) -> Result<Option<Catalogued>> {
    if !is_name(name) {
        return Ok(None);
    }
    of_this_architecture(name, catalogued()?)
}

fn of_this_architecture(name: &str, all: Vec<Catalogued>) -> Result<Option<Catalogued>> {
    let mut named: Vec<_> = all.into_iter().filter(|known| known.entry.name == name).collect();
    if let Some(number) = named.iter().position(|known| known.entry.architecture == ARCH) {
        return Ok(Some(named.swap_remove(number)));
    }
    let Some(other) = named.first() else { return Ok(None) };
    let why = format!("the catalog has it for {}, and this machine is {ARCH}", other.entry.architecture);
    Err(Error::Refused { image: format!("{PREFIX}{name}"), why })
}

/// The names that there are, for people.
pub(super) fn names() -> String {
    let all = catalogued().unwrap_or_default();
    let mut names: Vec<_> = all.iter().map(|known| known.entry.name.as_str()).collect();
    names.dedup();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Algorithm;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("own.json");
        fs::write(&path, text).unwrap();
        (dir, path)
    }

    /// A catalog with these lines in place of its images.
    fn own(images: &str) -> (tempfile::TempDir, PathBuf) {
        file(&format!("{{\n\"version\": 1,\n\"images\": [\n{images}\n]}}"))
    }

    #[test]
    fn ours_is_written_as_it_is_read() {
        assert_eq!(Catalog::parse(OURS, Path::new("ours")).unwrap_or_else(|e| panic!("{e}")).text(), OURS);
        let names: BTreeSet<_> = Catalog::ours().images().iter().map(|entry| entry.name.as_str()).collect();
        let expected = [
            "alpine-3.21",
            "alpine-3.22",
            "alpine-3.23",
            "debian-11",
            "debian-12",
            "debian-13",
            "fedora-42",
            "fedora-43",
            "fedora-44",
            "ubuntu-22.04",
            "ubuntu-24.04",
            "ubuntu-26.04",
        ];
        assert_eq!(names, BTreeSet::from(expected));
        for entry in Catalog::ours().images() {
            let known = entry.url.as_ref().is_some_and(|url| url.starts_with("https://")) && entry.digest.is_some();
            assert!(known, "{}", entry.name);
        }
    }

    #[test]
    fn what_is_said_of_its_machines_tells_images_apart() {
        let (_dir, path) = own(r#"{"name": "a", "architecture": "m68k"},
               {"name": "b", "architecture": "m68k", "login": "admin"},
               {"name": "c", "architecture": "m68k", "ready": "admin"}"#);
        let catalog = Catalog::read(&path).unwrap();
        let digest = Algorithm::Sha256.read(&"0".repeat(64)).unwrap();
        let keys: Vec<_> = catalog.images().iter().map(|entry| entry.key(digest)).collect();
        assert_eq!(keys[0], key_of(digest), "as without a catalog");
        assert_eq!(BTreeSet::from_iter(&keys).len(), 3, "{keys:?}");
        let written = catalog.text();
        assert!(written.contains(r#""login": "admin""#) && written.contains(r#""ready": "admin""#), "{written}");
    }

    #[test]
    fn an_own_image_comes_before_ours() {
        let (_dir, path) = own(&format!(
            r#"{{"name": "debian-12", "architecture": "{ARCH}", "url": "https://mirror/x"}}, {{"name": "base", "architecture": "m68k"}}"#
        ));
        let all = || merged(Some(path.clone())).unwrap();
        let found = of_this_architecture("debian-12", all()).unwrap().expect("it is there");
        assert_eq!((found.entry.url.as_deref(), &found.catalog), (Some("https://mirror/x"), &Some(path.clone())));
        assert_eq!(all().iter().filter(|known| known.entry.name == "debian-12").count(), 1);
        assert_eq!(of_this_architecture("debian-13", all()).unwrap().expect("it is ours").catalog, None);
        assert_eq!(of_this_architecture("base", merged(None).unwrap()).unwrap(), None);
        let error = of_this_architecture("base", all()).expect_err("it is for others").to_string();
        assert!(error.starts_with("`cloud:base` cannot be made: the catalog has it for m68k, and this"), "{error}");
    }

    #[test]
    fn a_broken_catalog_says_where() {
        let said = |(_dir, path): (tempfile::TempDir, PathBuf)| {
            let error = Catalog::read(&path).expect_err("it is broken").to_string();
            error.replace(&path.display().to_string(), "own.json")
        };
        let one = r#"{"name": "a", "architecture": "x86_64"}"#;
        for (catalog, expected) in [
            (
                own(&format!("{one},\n{{\"nam\": 1}}")),
                "own.json:5 cannot be read: unknown field `nam`, expected one of",
            ),
            (own(&format!("{one},\n{one}")), "own.json:5 cannot be read: `a` for x86_64 is there twice"),
            (own(&one.replace("\"a\"", "\"a/b\"")), "own.json:4 cannot be read: `a/b` is no name: take letters,"),
            (own(&one.replace('}', r#", "digest": "sha512:ab"}"#)), "own.json:4 cannot be read: `ab` is no SHA-512:"),
            (own(&one.replace('}', r#", "date": "July"}"#)), "own.json:4 cannot be read: `July` is no date: write it"),
            (own("{"), "own.json:5 cannot be read: "),
            (
                file("{\"version\": 2, \"images\": []}"),
                "own.json:1 cannot be read: it has the form 2, and this version",
            ),
            (file(""), "own.json:1 cannot be read: EOF"),
        ] {
            let error = said(catalog);
            assert!(error.starts_with(&format!("the catalog {expected}")), "{error}");
        }
        let error = Catalog::read(Path::new("/nowhere.json")).expect_err("it is not there").to_string();
        assert!(error.starts_with("the catalog /nowhere.json cannot be read: No such file"), "{error}");
        assert!(error.ends_with("`cargo vmtest image bump debian-12 --catalog /nowhere.json` begins one"), "{error}");
    }

    #[test]
    fn a_catalog_is_replaced_as_a_whole() {
        let (dir, path) = own(r#"{"name": "b", "architecture": "x86_64"}, {"name": "a", "architecture": "x86_64"}"#);
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let link = dir.path().join("link.json");
        std::os::unix::fs::symlink("own.json", &link).unwrap();
        Catalog::read(&link).unwrap().write(&link).unwrap();
        let names: Vec<_> = Catalog::read(&path).unwrap().images.into_iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside it");
        let error = Catalog::empty().write(Path::new("/nowhere/x.json")).expect_err("it has no place").to_string();
        assert!(error.starts_with("the catalog /nowhere/x.json cannot be written: No such file"), "{error}");
    }
}
