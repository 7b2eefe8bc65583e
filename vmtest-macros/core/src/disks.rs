//! What stands inside `fixture(..)` and `volume(..)`.

use proc_macro2::Ident;
use syn::LitStr;

use crate::attribute::{one_of, parse, string_and_keys};
use crate::grammar::Value;
use crate::keys::{ACCESS, Key};
use crate::problems::Problems;
use crate::setting::{Fixture, Volume};
use crate::units;

/// The keys inside `fixture(..)`, after the directory, with examples.
pub(crate) const IN_FIXTURE: &[(&str, &str)] = &[("at", r#"at = "/srv""#), ("label", r#"label = "data""#)];

/// `None` if there was a problem and it has been reported.
pub(crate) fn fixture(key: &Key, name: &Ident, value: Value, problems: &mut Problems) -> syn::Result<Option<Fixture>> {
    let (dir, [at, label]) = string_and_keys(key, name, value, IN_FIXTURE, ("directory", "a fixture"), problems)?;
    check_place(at.as_ref(), "a fixture", problems);
    Ok(dir.map(|dir| Fixture { dir, at, label }))
}

/// The keys inside `volume(..)`, after the name, with examples.
pub(crate) const IN_VOLUME: &[(&str, &str)] =
    &[("at", r#"at = "/srv""#), ("size", r#"size = "4GiB""#), ("access", r#"access = "read-only""#)];

/// `None` if there was a problem and it has been reported.
pub(crate) fn volume(key: &Key, name: &Ident, value: Value, problems: &mut Problems) -> syn::Result<Option<Volume>> {
    let (of, [at, size, access]) = string_and_keys(key, name, value, IN_VOLUME, ("name", "a volume"), problems)?;
    if let Some((name, why)) = of.as_ref().and_then(|name| Some((name, wrong_name(&name.value())?))) {
        problems.at(name.span(), format!("`{}` is no name of a volume: {why}", name.value()));
    }
    check_place(at.as_ref(), "a volume", problems);
    let bytes = size.as_ref().and_then(|size| problems.take(parse(size, units::bytes)));
    let read_only = access.and_then(|text| problems.take(one_of(&text, "access", ACCESS)).copied());
    if let (Some(size), Some(true)) = (&size, read_only) {
        let message = "a volume that is only read has the size that it was written with: leave out `size` or `access`";
        problems.at(size.span(), message);
    }
    Ok(of.map(|name| Volume { name, at, bytes, read_only: read_only.unwrap_or_default() }))
}

fn check_place(at: Option<&LitStr>, whole: &str, problems: &mut Problems) {
    if let Some(at) = at.filter(|at| !at.value().starts_with('/')) {
        let message = format!("{whole} is mounted at an absolute path of the guest: write `at = \"/srv\"`");
        problems.at(at.span(), message);
    }
}

/// What is wrong with the name of a volume, as `vmtest-fixtures` has it.
fn wrong_name(name: &str) -> Option<&'static str> {
    let ok = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    match name {
        "" => Some("it is empty"),
        _ if name.len() > 64 => Some("it is longer than 64 characters"),
        _ if !name.bytes().all(ok) => Some("it may hold letters, digits, `-` and `_`"),
        _ if name.starts_with(['-', '_']) => Some("it begins with a letter or a digit"),
        _ => None,
    }
}
