//! Publishers on loopback.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead, BufReader, Write as _},
    net::TcpListener,
    path::Path,
    time::Duration,
};

use super::*;

const PATIENCE: Patience = Patience { silence: Duration::from_secs(30), first_pause: Duration::from_millis(1) };
const MODIFIED: &str = "Tue, 14 Apr 2026 08:49:37 GMT";

/// Serves these texts by their paths, and nothing else, for as long as the tests run.
fn site(pages: &[(&str, String)]) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pages: BTreeMap<_, _> = pages.iter().map(|(path, text)| ((*path).to_owned(), text.clone())).collect();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(std::result::Result::ok);
            let request = head.next().unwrap_or_default();
            head.take_while(|line| !line.is_empty()).for_each(drop);
            let page = pages.get(request.split(' ').nth(1).unwrap_or_default());
            let (status, text) = page.map_or(("404 Not Found", ""), |text| ("200 OK", text));
            let length = text.len();
            // A client that goes is none of its business.
            _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nLast-Modified: {MODIFIED}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
            );
        }
    });
    url
}

fn listing(names: &[&str]) -> String {
    names.iter().fold("<html><a href=\"../\">up</a>".to_owned(), |mut html, name| {
        write!(html, "<a href=\"{name}\">{name}</a>").unwrap();
        html
    })
}

fn hex(pair: &str, length: usize) -> String {
    pair.repeat(length / 2)
}

/// A catalog with these lines in place of its images.
fn catalog(dir: &Path, images: &str) -> Catalog {
    let path = dir.join("own.json");
    std::fs::write(&path, format!(r#"{{"version": 1, "images": [{images}]}}"#)).unwrap();
    Catalog::read(&path).unwrap_or_else(|e| panic!("{e}"))
}

fn entry(name: &str, more: &str) -> String {
    format!(r#"{{"name": "{name}", "architecture": "x86_64"{more}}}"#)
}

/// What is known of an image after it was bumped, or why it is not.
fn after(bumped: &Bumped) -> String {
    match &bumped.after {
        Ok(entry) => {
            let date = entry.date.map_or("-".to_owned(), |date| date.to_string());
            let digest = entry.digest.map_or("-".to_owned(), |digest| digest.tagged()[..11].to_owned());
            format!("{date} {digest} {}", entry.url.as_deref().unwrap_or("-"))
        }
        Err(why) => why.clone(),
    }
}

#[test]
fn the_newest_is_found_as_each_publisher_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let (short, long) = (hex("ab", 64), hex("cd", 128));
    let site = site(&[
        ("/debian/", listing(&["20260712-9/", "20260712-10/", "20260101-99/", "latest/"])),
        (
            "/debian/20260712-10/SHA512SUMS",
            format!("{}  d-arm64.qcow2\n{long}  d-amd64.qcow2\n{long}  d-amd64.qcow2.json\n", hex("00", 128)),
        ),
        ("/ubuntu/", listing(&["release/", "release-20260705/", "release-20260705.1/"])),
        ("/ubuntu/release-20260705.1/server/SHA256SUMS", format!("{short} *u-amd64.img\n")),
        ("/fedora/", listing(&["F-43-1.6-CHECKSUM", "F-43-1.10-CHECKSUM", "F-43-1.10.qcow2"])),
        (
            "/fedora/F-43-1.10-CHECKSUM",
            format!("-----BEGIN PGP SIGNED MESSAGE-----\n\nSHA256 (F-43-1.10.qcow2) = {short}\n"),
        ),
        ("/alpine/", listing(&["a-3.22.9.qcow2", "a-3.22.10.qcow2", "a-3.22.10.qcow2.sha512", "a-3.22.10.qcow2.asc"])),
        ("/alpine/a-3.22.10.qcow2.sha512", long),
    ]);
    let images = [
        ("debian", r#""release": "[0-9]{8}-[0-9]+", "file": "d-amd64\\.qcow2", "sums": "SHA512SUMS""#),
        ("ubuntu", r#""release": "release-[0-9.]+", "below": "server", "file": "u-amd64\\.img", "sums": "SHA256SUMS""#),
        ("fedora", r#""file": "F-43-[0-9.]+\\.qcow2", "sums": "F-43-[0-9.]+-CHECKSUM""#),
        ("alpine", r#""file": "a-3\\.22\\.[0-9]+\\.qcow2", "sums": "{file}.sha512""#),
    ];
    let images = images.map(|(name, how)| entry(name, &format!(r#", "bump": {{"index": "{site}/{name}", {how}}}"#)));
    let mut catalog = catalog(dir.path(), &images.join(","));
    let bumped = bump_within(&mut catalog, &[], PATIENCE).unwrap();
    let found: Vec<_> = bumped.iter().map(|one| after(one).replace(&site, "")).collect();
    assert_eq!(
        found,
        [
            "2026-07-12 sha512:cdcd /debian/20260712-10/d-amd64.qcow2",
            "2026-07-05 sha256:abab /ubuntu/release-20260705.1/server/u-amd64.img",
            "2026-04-14 sha256:abab /fedora/F-43-1.10.qcow2",
            "2026-04-14 sha512:cdcd /alpine/a-3.22.10.qcow2",
        ]
    );
    assert!(bumped.iter().all(Bumped::has_changed));
    assert_eq!(
        catalog.images().iter().map(|entry| entry.digest).collect::<Vec<_>>(),
        bumped.iter().map(|one| one.after.as_ref().unwrap().digest).collect::<Vec<_>>()
    );
    let again = bump_within(&mut catalog, &[], PATIENCE).unwrap();
    assert!(again.iter().all(|one| one.after.is_ok() && !one.has_changed()));
}

#[test]
fn what_is_older_or_the_same_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (is, other) = (hex("ab", 64), hex("cd", 64));
    let site = site(&[("/SHA256SUMS", format!("{is}  a-9.img\n{is}  a-10.img\n"))]);
    let how = format!(r#""bump": {{"index": "{site}/", "file": "a-[0-9]+\\.img", "sums": "SHA256SUMS"}}"#);
    let known = |name: &str, file: &str, digest: &str| {
        entry(name, &format!(r#", "url": "https://mirror/{file}", "digest": "sha256:{digest}", {how}"#))
    };
    let images =
        [known("ahead", "a-11.img", &other), known("behind", "a-9.img", &other), known("same", "a-10.img", &is)];
    let mut catalog = catalog(dir.path(), &images.join(","));
    let bumped = bump_within(&mut catalog, &[], PATIENCE).unwrap();
    let found: Vec<_> = bumped.iter().map(|one| after(one).replace(&site, "")).collect();
    assert_eq!(
        found,
        [
            "- sha256:cdcd https://mirror/a-11.img",
            "2026-04-14 sha256:abab /a-10.img",
            // Only its date was not known.
            "2026-04-14 sha256:abab https://mirror/a-10.img",
        ]
    );
}

#[test]
fn one_that_does_not_say_does_not_hinder_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let digest = hex("ab", 64);
    let gone = {
        // Nobody listens there any more.
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let site = site(&[
        ("/SHA256SUMS", format!("{digest}  a-1.img\n")),
        ("/md5/", listing(&["a-1.img"])),
        ("/md5/a-1.img.md5", hex("ab", 32)),
    ]);
    let how = |index: &str, more: &str| format!(r#", "bump": {{"index": "{index}", "file": "a-[0-9]+\\.img"{more}}}"#);
    let sums = r#", "sums": "SHA256SUMS""#;
    let images = [
        entry("absent", &how(&format!("{site}/absent"), sums)),
        entry("gone", &how(&gone, sums)),
        entry("md5", &how(&format!("{site}/md5"), r#", "sums": "{file}.md5""#)),
        entry("other", &how(&site, sums).replace("a-", "b-")),
        entry("right", &how(&site, sums)),
        entry("wrong", &how(&site, sums).replace("a-", "a(")),
    ];
    let mut catalog = catalog(dir.path(), &images.join(","));
    let bumped = bump_within(&mut catalog, &[], PATIENCE).unwrap();
    let said: Vec<_> = bumped.iter().map(|one| after(one).replace(&site, "S").replace(&gone, "G")).collect();
    assert_eq!(said[0], "cannot fetch S/absent/SHA256SUMS, after 1 try: the server answers 404 Not Found");
    assert!(said[1].starts_with("cannot fetch G/SHA256SUMS, after 5 tries: "), "{}", said[1]);
    assert_eq!(
        said[2..],
        [
            "S/md5/a-1.img.md5 has no SHA-256 or SHA-512 of a-1.img",
            "S/SHA256SUMS names no `b-[0-9]+\\.img`",
            "2026-04-14 sha256:abab S/a-1.img",
            "its `file`, `a([0-9]+\\.img`, is no regular expression",
        ]
    );
    let known: Vec<_> =
        catalog.images().iter().filter(|entry| entry.digest.is_some()).map(|entry| &*entry.name).collect();
    assert_eq!(known, ["right"]);
}

#[test]
fn names_say_which_and_may_be_ours() {
    let dir = tempfile::tempdir().unwrap();
    let own = catalog(dir.path(), &[entry("fixed", ""), entry("debian-13", "")].join(","));
    let named = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let wanted = wanted(&own, &names).map_err(|e| e.to_string())?;
        Ok::<_, String>(wanted.iter().map(|entry| (entry.name.clone(), entry.bump.is_some())).collect::<Vec<_>>())
    };
    assert_eq!(named(&[]), Ok(vec![]), "they say nothing of their publishers");
    let found = named(&["debian-13", "debian-12", "debian-12"]);
    assert_eq!(found, Ok(vec![("debian-13".to_owned(), false), ("debian-12".to_owned(), true)]));
    let error = named(&["debian-12", "debain"]).unwrap_err();
    assert!(error.starts_with("there is no image `debain`: known are alpine-3.21, "), "{error}");
    assert!(error.contains(", debian-13, fedora-42,") && error.contains(", fixed, "), "{error}");
    let fixed = newer(&own.images()[0], PATIENCE).unwrap_err();
    assert_eq!(fixed, "its entry has no `bump`, which says where newer ones are");
}
