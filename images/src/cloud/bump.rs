//! Asks publishers for newer builds of the images of a catalog.

use std::thread;

use super::{
    catalog::{Catalog, CatalogEntry},
    publisher::Newest,
};
use crate::{Error, Result, fetch::Patience, version::pieces};

/// What became of one image of a catalog.
#[derive(Debug)]
#[non_exhaustive]
pub struct Bumped {
    /// As it was.
    pub before: CatalogEntry,
    /// As it is, which may be the same; or why its publisher does not say.
    pub after: std::result::Result<CatalogEntry, String>,
}

impl Bumped {
    /// Whether there is something newer.
    pub fn has_changed(&self) -> bool {
        self.after.as_ref().is_ok_and(|after| *after != self.before)
    }
}

/// Asks the publishers of these images, or of all that say who that is, and puts what is newer into the catalog; from an image of
/// ours that is named and not in the catalog it takes how it is found. All are asked at the same time, and one that does not
/// answer does not hinder the others. Blocks.
///
/// # Errors
/// [`Error::Unknown`] for a name that is in neither catalog; nobody is asked then.
pub fn bump(catalog: &mut Catalog, names: &[String]) -> Result<Vec<Bumped>> {
    bump_within(catalog, names, Patience::default())
}

fn bump_within(catalog: &mut Catalog, names: &[String], patience: Patience) -> Result<Vec<Bumped>> {
    let wanted = wanted(catalog, names)?;
    let bumped: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = wanted.iter().map(|entry| scope.spawn(move || newer(entry, patience))).collect();
        asked.into_iter().map(|one| one.join().expect("who asks does not panic")).collect()
    });
    let bumped: Vec<_> = wanted.into_iter().zip(bumped).map(|(before, after)| Bumped { before, after }).collect();
    for after in bumped.iter().filter_map(|one| one.after.as_ref().ok()) {
        let images = catalog.images_mut();
        match images.iter_mut().find(|entry| entry.is_named_as(after)) {
            Some(entry) => *entry = after.clone(),
            None => images.push(after.clone()),
        }
    }
    Ok(bumped)
}

/// The entries that are to be bumped.
fn wanted(catalog: &Catalog, names: &[String]) -> Result<Vec<CatalogEntry>> {
    if names.is_empty() {
        return Ok(catalog.images().iter().filter(|entry| entry.bump.is_some()).cloned().collect());
    }
    let mut wanted = Vec::new();
    for name in names {
        let of = |catalog: &Catalog| -> Vec<_> {
            catalog.images().iter().filter(|entry| entry.name == *name).cloned().collect()
        };
        let found = [of(catalog), of(Catalog::ours())].into_iter().find(|found| !found.is_empty());
        let found = found.ok_or_else(|| unknown(catalog, name))?;
        wanted.extend(found.into_iter().filter(|entry| !wanted.contains(entry)).collect::<Vec<_>>());
    }
    Ok(wanted)
}

fn unknown(catalog: &Catalog, name: &str) -> Error {
    let mut known: Vec<_> = [catalog, Catalog::ours()].iter().flat_map(|catalog| catalog.images()).collect();
    known.sort_by_key(|entry| &entry.name);
    let mut known: Vec<_> = known.into_iter().map(|entry| entry.name.as_str()).collect();
    known.dedup();
    Error::Unknown { name: name.to_owned(), known: known.join(", ") }
}

/// The entry with the newest build of its image.
fn newer(entry: &CatalogEntry, patience: Patience) -> std::result::Result<CatalogEntry, String> {
    let publisher = entry.bump.as_ref().ok_or("its entry has no `bump`, which says where newer ones are")?;
    let Newest { file, url, digest, date } = publisher.ask(patience)?;
    let own_file = entry.url.as_deref().and_then(|url| url.rsplit('/').next()).unwrap_or_default();
    if entry.digest == Some(digest) {
        // From wherever it is fetched.
        return Ok(CatalogEntry { date: entry.date.or(date), url: entry.url.clone().or(Some(url)), ..entry.clone() });
    }
    // Some take back what they have published; a test does not go back with them.
    if entry.digest.is_some() && (pieces(&file), date) < (pieces(own_file), entry.date) {
        return Ok(entry.clone());
    }
    Ok(CatalogEntry { url: Some(url), digest: Some(digest), date, ..entry.clone() })
}

#[cfg(test)]
mod tests;
