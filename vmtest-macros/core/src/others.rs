//! Other attributes on the function: most stay and work, some are in the wrong place.

use syn::spanned::Spanned;
use syn::{Attribute, Path};

use crate::problems::Problems;

/// Crates whose `test` attribute runs an async function on a runtime.
const RUNTIMES: &[&str] = &["actix_rt", "actix_web", "async_std", "smol_potat", "tokio", "tokio_uring"];

/// Reports the attributes below ours that cannot work there.
pub(crate) fn check(attrs: &[Attribute], problems: &mut Problems) {
    for attr in attrs {
        let path = attr.path();
        if path.is_ident("node") {
            problems.at(
                path.span(),
                "`#[node(..)]` stands before a parameter; what holds for all nodes stands in `#[vm_test(..)]`",
            );
        } else if is_rstest(attr) {
            problems.at(path.span(), "`#[rstest]` goes first: write it above, and `#[vmtest::test]` last");
        } else if is_ours(path) {
            problems.at(path.span(), "this makes a test of a test: one `#[vm_test]` is enough");
        } else if makes_a_test(attr) && path.segments.first().is_some_and(|first| is_one_of(first, RUNTIMES)) {
            problems.at(path.span(), "the body has a runtime already: remove this attribute");
        }
    }
}

/// Reports what only libtest does, and nobody would do for a trial.
pub(crate) fn check_trial(attrs: &[Attribute], problems: &mut Problems) {
    for attr in attrs {
        let path = attr.path();
        if path.is_ident("should_panic") {
            let message =
                "this is of libtest, which does not run here: let the body return an error, or catch the panic in it";
            problems.at(path.span(), message);
        } else if makes_a_test(attr) {
            problems.at(path.span(), "with `harness = false` nothing runs what this makes: remove this attribute");
        }
    }
}

/// Whether it runs only when that is asked for.
pub(crate) fn is_ignored(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| attr.path().is_ident("ignore"))
}

/// Whether this makes a test of a plain function.
pub(crate) fn makes_a_test(attr: &Attribute) -> bool {
    ends_in(attr.path(), "test")
}

/// Whether this is the attribute of `rstest`, which writes the functions that become tests.
pub(crate) fn is_rstest(attr: &Attribute) -> bool {
    ends_in(attr.path(), "rstest")
}

/// Whether this keeps its meaning, and says nothing more, on a function that is no test.
pub(crate) fn may_stay_beside_an_error(attr: &Attribute) -> bool {
    !(makes_a_test(attr) || is_ours(attr.path()) || attr.path().is_ident("node"))
}

fn is_ours(path: &Path) -> bool {
    let is_crate = path.segments.first().is_some_and(|first| first.ident == "vmtest");
    ends_in(path, "vm_test") || (is_crate && ends_in(path, "test"))
}

fn ends_in(path: &Path, name: &str) -> bool {
    path.segments.last().is_some_and(|last| last.ident == name)
}

fn is_one_of(segment: &syn::PathSegment, names: &[&str]) -> bool {
    names.iter().any(|name| segment.ident == name)
}
