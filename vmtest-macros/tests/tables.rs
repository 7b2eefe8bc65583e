//! The tables of the macro, held against what `vmtest` has.

#[test]
fn what_can_be_required_is_what_there_is() {
    let theirs = vmtest::spec::Capability::ALL.iter().map(|what| (what.name().to_owned(), format!("{what:?}")));
    let ours = vmtest_macros_core::CAPABILITIES.iter().map(|&(name, variant)| (name.to_owned(), variant.to_owned()));
    assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>());
}
