//! What the compiler prints for each wrong use, with the real `vmtest` beside it: one mistake a file, and one error for it.
//!
//! All of it is built once more for that, which takes minutes: `.ci/full` asks for it. After a change of words,
//! `TRYBUILD=overwrite cargo test --workspace --test misuse -- --ignored` writes them down, to be read before they are committed.

use trybuild::TestCases;

/// The words are the macro's own, the same with every compiler.
#[test]
#[ignore = "builds the library once more: `.ci/full` runs it"]
fn every_misuse_is_explained_in_its_place() {
    TestCases::new().compile_fail("tests/misuse/*.rs");
}

/// The words around ours are rustc's, and may be others with the next release.
#[test]
#[ignore = "builds the library once more: `.ci/full` runs it"]
fn a_type_that_does_not_fit_is_explained_once() {
    TestCases::new().compile_fail("tests/misuse/types/*.rs");
}
