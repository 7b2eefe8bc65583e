//! The book holds together: every page is in its summary, and every link and every included piece is there.

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn pages(dir: &Path) -> Vec<PathBuf> {
    let entries = dir.read_dir().expect("it can be read").flatten().map(|entry| entry.path());
    let found = entries.flat_map(|path| if path.is_dir() { pages(&path) } else { vec![path] });
    found.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// What stands between these two, every time.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| Some(rest.split_once(after)?.0))
}

/// Links of a page to files, without those in code.
fn links(text: &str) -> Vec<&str> {
    let mut in_code = false;
    let prose = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    });
    let all = prose.flat_map(|line| between(line, "](", ")"));
    all.filter(|link| !link.contains("://"))
        .filter_map(|link| link.split('#').next())
        .filter(|link| !link.is_empty())
        .collect()
}

#[test]
fn every_page_is_in_the_summary() {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).expect("it is there");
    for page in pages(&docs) {
        let name = page.strip_prefix(&docs).expect("it is below").display().to_string();
        let listed = name == "SUMMARY.md" || summary.contains(&format!("]({name})"));
        assert!(listed, "docs/{name} is not in docs/SUMMARY.md");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let mut all = pages(&root.join("docs"));
    all.extend(["README.md", "CHANGELOG.md", "fixtures/README.md", "images/README.md"].map(|name| root.join(name)));
    let mut checked = 0;
    for page in all {
        let text = fs::read_to_string(&page).expect("it can be read");
        let here = page.parent().expect("it is in a directory");
        for link in links(&text) {
            checked += 1;
            assert!(here.join(link).exists(), "{} links to {link}, which is not there", page.display());
            // What is outside of the book would be missing in what is made of it.
            let leaves = page.starts_with(root.join("docs")) && pages_above(&page, &root.join("docs")) < ups(link);
            assert!(!leaves, "{} links to {link}, which is not in the book", page.display());
        }
    }
    assert!(checked > 100, "only {checked} links were found");
}

/// How many directories a page is below the book's own.
fn pages_above(page: &Path, docs: &Path) -> usize {
    page.strip_prefix(docs).map_or(0, |inside| inside.components().count() - 1)
}

fn ups(link: &str) -> usize {
    link.split('/').take_while(|part| *part == "..").count()
}

#[test]
fn every_included_piece_is_there() {
    let mut checked = 0;
    for page in pages(&root().join("docs")) {
        let text = fs::read_to_string(&page).expect("it can be read");
        for included in between(&text, "{{#include ", "}}") {
            checked += 1;
            let (file, anchor) = included.split_once(':').unwrap_or((included, ""));
            let file = page.parent().expect("it is in a directory").join(file);
            let source =
                fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {}: {e}", page.display(), file.display()));
            for mark in ["ANCHOR", "ANCHOR_END"] {
                let there =
                    anchor.is_empty() || source.lines().any(|line| line.trim() == format!("// {mark}: {anchor}"));
                assert!(there, "{} has no {mark} of {anchor}", file.display());
            }
        }
    }
    assert!(checked > 5, "only {checked} pieces were found");
}
