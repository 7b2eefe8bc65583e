//! Filtersets of nextest.

use std::collections::{BTreeMap, BTreeSet};

use super::declared::Test;

/// What selects these tests and no others, with the cases that other attributes have made of them.
pub(crate) fn filter<'a>(tests: impl IntoIterator<Item = &'a Test>) -> String {
    let mut of_binaries: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for test in tests {
        of_binaries.entry(&test.binary_id).or_default().insert(escaped(&test.declared.path));
    }
    let of_binary = |(binary, names): (&str, BTreeSet<String>)| {
        let names = names.into_iter().collect::<Vec<_>>().join("|");
        format!("binary_id(={binary}) & test(/^({names})(::|$)/)")
    };
    let binaries: Vec<_> = of_binaries.into_iter().map(of_binary).collect();
    match binaries.as_slice() {
        [] => "none()".to_owned(),
        [only] => only.clone(),
        several => several.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join(" | "),
    }
}

/// A path has letters, digits, underscores and colons; of a raw identifier the `#`, which means nothing in a regular
/// expression either.
fn escaped(path: &str) -> String {
    path.chars().filter(|c| c.is_alphanumeric() || "_:#".contains(*c)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::declared::examples::test;
    use super::*;

    #[test]
    fn tests_are_selected_by_binary_and_path() {
        assert_eq!(filter(&[]), "none()");
        let one = [test("web", "b", 1, &[]), test("web", "a::c", 1, &[])];
        assert_eq!(filter(&one), "binary_id(=web) & test(/^(a::c|b)(::|$)/)");
        let two = [test("web", "b", 1, &[]), test("web::it", "c", 1, &[])];
        assert_eq!(filter(&two), "(binary_id(=web) & test(/^(b)(::|$)/)) | (binary_id(=web::it) & test(/^(c)(::|$)/))");
    }
}
