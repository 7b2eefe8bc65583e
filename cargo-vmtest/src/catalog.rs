//! `cargo vmtest image catalog` and `image bump`: the cloud images that can be named, and newer ones.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;
use vmtest_images::{
    Bumped, CATALOG, Cache, Catalog, CatalogEntry, Catalogued, Date, Digest, catalog_file, catalogued,
};

use super::output::{self, line};

/// The form of what `--json` prints, raised when it changes.
const VERSION: u32 = 1;
/// What stands for a date or an address that is not known.
const UNKNOWN: &str = "-";
/// How many digits of a digest tell it apart from others, for people.
const DIGITS: usize = 12;

#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    /// The user's own catalog.
    catalog: Option<PathBuf>,
    images: Vec<Listed<'a>>,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    architecture: &'a str,
    date: Option<Date>,
    digest: Option<Digest>,
    url: Option<&'a str>,
    /// The user's own, or none where it is of ours.
    catalog: Option<&'a Path>,
    cached: bool,
}

/// Prints all images that can be named.
pub(crate) fn list(cache: &Cache, json: bool) -> Result<(), String> {
    let all = catalogued().map_err(|e| e.to_string())?;
    let listed = |known: &'_ Catalogued| known.is_cached(cache).map_err(|e| e.to_string());
    let cached: Vec<bool> = all.iter().map(listed).collect::<Result<_, _>>()?;
    let images: Vec<_> = all.iter().zip(cached).map(|(known, cached)| of(known, cached)).collect();
    let report = Report { version: VERSION, catalog: catalog_file(), images };
    if json {
        return output::json(&report);
    }
    let width = all.iter().map(|known| known.entry.name.len()).max().unwrap_or_default();
    for image in &report.images {
        let state = if image.cached { "cached" } else { "" };
        let digest = image.digest.map_or(UNKNOWN.to_owned(), |digest| short(&digest.tagged()).to_owned());
        let (date, url) = (day(image.date), image.url.unwrap_or(UNKNOWN));
        line(format_args!("{:width$}  {date:10}  {state:6}  {digest:19}  {url}", image.name));
    }
    let own = report.catalog.map(|path| format!(", with those of {}", path.display())).unwrap_or_default();
    line(format_args!("{} images{own}", report.images.len()));
    Ok(())
}

fn of(known: &Catalogued, cached: bool) -> Listed<'_> {
    let CatalogEntry { name, architecture, date, digest, url, .. } = &known.entry;
    let (date, digest, url) = (*date, *digest, url.as_deref());
    Listed { name, architecture, date, digest, url, catalog: known.catalog.as_deref(), cached }
}

#[derive(Serialize)]
struct BumpReport<'a> {
    version: u32,
    catalog: &'a Path,
    /// Whether that was changed.
    written: bool,
    images: Vec<Outcome<'a>>,
}

#[derive(Serialize)]
struct Outcome<'a> {
    name: &'a str,
    architecture: &'a str,
    changed: bool,
    before: Known<'a>,
    after: Option<Known<'a>>,
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Known<'a> {
    date: Option<Date>,
    digest: Option<Digest>,
    url: Option<&'a str>,
}

impl<'a> Known<'a> {
    fn of(entry: &'a CatalogEntry) -> Self {
        Self { date: entry.date, digest: entry.digest, url: entry.url.as_deref() }
    }
}

impl<'a> Outcome<'a> {
    fn of(bumped: &'a Bumped) -> Self {
        let Bumped { before, after, .. } = bumped;
        Self {
            name: &before.name,
            architecture: &before.architecture,
            changed: bumped.has_changed(),
            before: Known::of(before),
            after: after.as_ref().ok().map(Known::of),
            error: after.as_ref().err().map(String::as_str),
        }
    }
}

/// Asks publishers, and writes what is newer into a catalog.
pub(crate) fn bump(names: &[String], file: Option<PathBuf>, dry_run: bool, json: bool) -> Result<ExitCode, String> {
    let file = file.or_else(catalog_file).ok_or_else(|| {
        format!(
            "there is no catalog to write to: ours comes with vmtest and changes with it. Name one of your own by `--catalog \
             FILE` or {CATALOG}; `cargo vmtest image bump debian-12 --catalog FILE` begins one"
        )
    })?;
    let is_new = !names.is_empty() && !file.exists();
    let mut catalog = if is_new { Catalog::empty() } else { Catalog::read(&file).map_err(|e| e.to_string())? };
    let bumped = vmtest_images::bump(&mut catalog, names).map_err(|e| e.to_string())?;
    let written = !dry_run && bumped.iter().any(|one| one.after.is_ok()) && !is_as_before(&catalog, &file);
    if written {
        catalog.write(&file).map_err(|e| e.to_string())?;
    }
    for one in &bumped {
        match &one.after {
            Err(why) => eprintln!("error: {}: {why}", one.before.name),
            Ok(after) if !json => line(change(one, after)),
            Ok(_) => {}
        }
    }
    if json {
        let images = bumped.iter().map(Outcome::of).collect();
        let report = BumpReport { version: VERSION, catalog: &file, written, images };
        output::json(&report)?;
    }
    Ok(if bumped.iter().all(|one| one.after.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether a file has this catalog already, in whatever form.
fn is_as_before(catalog: &Catalog, file: &Path) -> bool {
    Catalog::read(file).is_ok_and(|before| before == *catalog)
}

/// What became of an image, for people.
fn change(bumped: &Bumped, after: &CatalogEntry) -> String {
    let (name, before) = (&bumped.before.name, &bumped.before);
    if !bumped.has_changed() {
        return format!("{name}: {}, nothing newer", day(before.date));
    }
    let digest = after.digest.map_or(UNKNOWN.to_owned(), |digest| short(&digest.tagged()).to_owned());
    format!("{name}: {} -> {}, {digest}", day(before.date), day(after.date))
}

fn day(date: Option<Date>) -> String {
    date.map_or(UNKNOWN.to_owned(), |date| date.to_string())
}

/// The beginning of a digest that says how it was made.
pub(crate) fn short(tagged: &str) -> &str {
    let digits = tagged.find(':').map_or(0, |colon| colon + 1);
    tagged.get(..digits + DIGITS).unwrap_or(tagged)
}
