//! Publishers of cloud images, and how they are asked for the newest one.

use std::{collections::BTreeSet, fmt};

use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{date::Date, sums};
use crate::{
    Digest,
    fetch::{Patience, page},
    version::pieces,
};

/// What stands for the name of the image in that of a file of checksums which has no other.
const FILE: &str = "{file}";
/// The address of a link in a listing.
const LINK: &str = r#"(?i)\bhref\s*=\s*["']?([^"'\s>]+)"#;

/// Where a publisher has the newest build of an image, and its digest. Regular expressions are compared with whole names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publisher {
    /// The address of a directory, which answers with a listing in HTML.
    pub index: String,
    /// Matches the names of the directories there that have a build each. Without, the image is in `index` itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The directory of the image below that of its build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<String>,
    /// Matches the name of the image.
    pub file: String,
    /// The file with its SHA-256 or SHA-512, beside it: its name, a regular expression that matches that, or `{file}` and what
    /// stands behind the name of the image.
    pub sums: String,
}

/// What a publisher has.
pub(super) struct Newest {
    /// The name of the image.
    pub(super) file: String,
    pub(super) url: String,
    pub(super) digest: Digest,
    /// That of its name, or when its digest was written.
    pub(super) date: Option<Date>,
}

impl Publisher {
    /// Asks for the newest build. Blocks.
    ///
    /// # Errors
    /// Why there is none to be had, as the end of a sentence about the image.
    pub(super) fn ask(&self, patience: Patience) -> Result<Newest, String> {
        let patterns = self.patterns()?;
        let mut dir = as_dir(&self.index);
        if let Some(release) = &patterns.release {
            let names = listed(&dir, patience)?;
            let name = newest(&names, release).ok_or_else(|| format!("{dir} lists no `{release}`"))?;
            dir = as_dir(&format!("{dir}{name}"));
        }
        if let Some(below) = &self.below {
            dir = as_dir(&format!("{dir}{}", below.trim_matches('/')));
        }
        let (file, sums) = self.image_and_sums(&dir, &patterns, patience)?;
        let digest = sums.of(&file).ok_or_else(|| format!("{} has no SHA-256 or SHA-512 of {file}", sums.url))?;
        let url = format!("{dir}{file}");
        let of_name = Date::in_name(url.strip_prefix(&as_dir(&self.index)).unwrap_or(&file));
        let date = of_name.or_else(|| sums.modified.as_deref().and_then(Date::of_http));
        Ok(Newest { file, url, digest, date })
    }

    /// The name of the newest image in a directory, and the checksums there.
    fn image_and_sums(&self, dir: &str, patterns: &Patterns, patience: Patience) -> Result<(String, Sums), String> {
        let image = |names: &BTreeSet<String>, place: &str, verb: &str| {
            let file = newest(names, &patterns.file);
            file.ok_or_else(|| format!("{place} {verb} no `{}`", patterns.file))
        };
        let Some(pattern) = &patterns.sums else {
            let file = image(&listed(dir, patience)?, dir, "lists")?;
            let sums = Sums::read(format!("{dir}{}", self.sums.replace(FILE, &file)), patience)?;
            return Ok((file, sums));
        };
        let name = if regex::escape(&self.sums) == self.sums {
            self.sums.clone()
        } else {
            newest(&listed(dir, patience)?, pattern).ok_or_else(|| format!("{dir} lists no `{pattern}`"))?
        };
        let sums = Sums::read(format!("{dir}{name}"), patience)?;
        let names = sums.found.iter().filter_map(|sum| sum.file.clone()).collect();
        Ok((image(&names, &sums.url, "names")?, sums))
    }

    fn patterns(&self) -> Result<Patterns, String> {
        let release = self.release.as_deref().map(|release| Pattern::new("release", release)).transpose()?;
        let sums = (!self.sums.contains(FILE)).then(|| Pattern::new("sums", &self.sums)).transpose()?;
        Ok(Patterns { release, file: Pattern::new("file", &self.file)?, sums })
    }
}

struct Patterns {
    release: Option<Pattern>,
    file: Pattern,
    /// None where the name follows that of the image.
    sums: Option<Pattern>,
}

/// A regular expression for all of a name, as it was written.
struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    fn new(key: &str, text: &str) -> Result<Self, String> {
        let regex = Regex::new(&format!("^(?:{text})$"));
        let regex = regex.map_err(|_| format!("its `{key}`, `{text}`, is no regular expression"))?;
        Ok(Self { text: text.to_owned(), regex })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A file of checksums.
struct Sums {
    url: String,
    found: Vec<sums::Sum>,
    /// When it was written, as HTTP says that.
    modified: Option<String>,
}

impl Sums {
    fn read(url: String, patience: Patience) -> Result<Self, String> {
        let page = page(&url, patience).map_err(|e| e.to_string())?;
        Ok(Self { url, found: sums::read(&page.text), modified: page.modified })
    }

    /// The digest of a file: that with its name, or the only one if that has none.
    fn of(&self, file: &str) -> Option<Digest> {
        let named = self.found.iter().find(|sum| sum.file.as_deref() == Some(file));
        let found = named.or(match self.found.as_slice() {
            [only] if only.file.is_none() => Some(only),
            _ => None,
        });
        found.map(|sum| sum.digest)
    }
}

/// The name of all that match which has the greatest numbers.
fn newest(names: &BTreeSet<String>, pattern: &Pattern) -> Option<String> {
    names.iter().filter(|name| pattern.regex.is_match(name)).max_by_key(|name| pieces(name)).cloned()
}

/// The names of what a directory has.
fn listed(url: &str, patience: Patience) -> Result<BTreeSet<String>, String> {
    let page = page(url, patience).map_err(|e| e.to_string())?;
    Ok(links(&page.text))
}

/// The last parts of all addresses that a page leads to, without the slash of a directory.
fn links(html: &str) -> BTreeSet<String> {
    let link = Regex::new(LINK).expect("it is one");
    let name = |address: &str| {
        let path = address.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
        path.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let names = link.captures_iter(html).map(|found| name(&found[1]));
    names.filter(|name| !["", ".", ".."].contains(&name.as_str())).collect()
}

/// The address with the slash that names of what is there follow.
fn as_dir(url: &str) -> String {
    format!("{}/", url.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::Catalog;

    #[test]
    fn a_listing_leads_to_what_it_has() {
        let html = r#"<a href="../">Parent</a> <A HREF='20260712-2537/'>x</A> <a class="d" href=latest/?C=N;O=D>y</a>
            <a href="/images/cloud/bookworm/daily/">z</a> <a href="https://host/dir/a.qcow2">w</a> <a href="?C=M">Sort</a>"#;
        let names: Vec<_> = links(html).into_iter().collect();
        assert_eq!(names, ["20260712-2537", "a.qcow2", "daily", "latest"]);
    }

    #[test]
    fn a_pattern_is_of_the_whole_name() {
        let names = ["a-9.img", "a-10.img", "xa-11.img", "a-12.img.xz"].map(str::to_owned).into();
        let pattern = |text: &str| Pattern::new("file", text).unwrap();
        assert_eq!(newest(&names, &pattern(r"a-[0-9]+\.img")).as_deref(), Some("a-10.img"));
        assert_eq!(newest(&names, &pattern("a-9|b")), None);
        let error = Pattern::new("file", "a(").err().expect("it is none");
        assert_eq!(error, "its `file`, `a(`, is no regular expression");
    }

    #[test]
    fn ours_are_what_their_publishers_are_asked_for() {
        for entry in Catalog::ours().images() {
            let publisher = entry.bump.as_ref().expect("all of ours are bumped");
            let patterns = publisher.patterns().unwrap_or_else(|why| panic!("{}: {why}", entry.name));
            let url = entry.url.as_deref().expect("all of ours are known");
            let (dir, file) = url.rsplit_once('/').unwrap();
            assert!(patterns.file.regex.is_match(file), "{url}");
            let Some(release) = patterns.release else { continue };
            let build = dir.strip_prefix(&publisher.index).unwrap_or_else(|| panic!("{url}"));
            assert!(release.regex.is_match(build), "{url}");
            assert_eq!(Date::in_name(build), entry.date, "{url}");
        }
    }
}
