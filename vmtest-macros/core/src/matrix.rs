//! Lists of values, `backend = ["qemu", "fake"]`: one test for each value, and for each combination where there are more.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use quote::format_ident;
use syn::LitStr;
use syn::ext::IdentExt;

use crate::grammar::{Value, span_of, split};
use crate::keys::{Key, Place};
use crate::problems::Problems;
use crate::setting::Setting;

/// A key with a list, as the tests that it makes have it.
pub(crate) struct Axis {
    /// What stands in a test's name before the value: `on` in `boots_on_qemu`.
    word: &'static str,
    make: fn(LitStr) -> Setting,
    /// Each with the part of a name that it becomes.
    values: Vec<(LitStr, String)>,
}

/// One of the tests that a function becomes.
pub(crate) struct Variant {
    pub(crate) name: Ident,
    /// What holds for it beside the settings of all.
    pub(crate) settings: Vec<Setting>,
}

/// The brackets in `key = [..]`, if there are any.
pub(crate) fn brackets(value: &Value) -> Option<Group> {
    let Value::Assigned(tokens) = value else { return None };
    let mut tokens = tokens.clone().into_iter();
    match (tokens.next(), tokens.next()) {
        (Some(TokenTree::Group(group)), None) if group.delimiter() == Delimiter::Bracket => Some(group),
        _ => None,
    }
}

impl Axis {
    /// Reads what stands in the brackets. `None` if there was a problem; it has been reported.
    pub(crate) fn read(
        key: &Key,
        (make, word): (fn(LitStr) -> Setting, &'static str),
        group: &Group,
        place: Place,
        problems: &mut Problems,
    ) -> Option<Self> {
        let (is, value) = key.example.split_once(" = ").unwrap_or((key.name, "\"..\""));
        let example = format!("{is} = [{value}, \"..\"]");
        if place == Place::Node {
            let why = format!("`{}` with a list makes more than one test", key.name);
            problems.at(group.span(), format!("{why}, and belongs on the test: write `#[vm_test({example})]`"));
            return None;
        }
        let mut values: Vec<LitStr> = Vec::new();
        let mut sound = true;
        let mut wrong = |span, message: String, problems: &mut Problems| {
            problems.at(span, message);
            sound = false;
        };
        let parts = split(group.stream(), problems);
        if parts.is_empty() {
            wrong(group.span(), format!("`{}` needs a value: write `{example}`", key.name), problems);
        }
        for part in parts {
            let span = span_of(&part, group.span());
            match string(part) {
                None => wrong(span, format!("a list for `{}` holds strings: write `{example}`", key.name), problems),
                Some(text) if values.iter().any(|other| other.value() == text.value()) => {
                    wrong(span, format!("`{}` is in the list already: write it once", text.value()), problems);
                }
                Some(text) if key.name == "backend" && text.value().contains(',') => {
                    let apart: Vec<_> = text.value().split(',').map(|name| format!("{:?}", name.trim())).collect();
                    let list = format!("in a list each stands alone, `[{}]`", apart.join(", "));
                    let order = format!("`backend = {:?}` without brackets", text.value());
                    wrong(span, format!("{list}; one test on the first of them that runs here is {order}"), problems);
                }
                Some(text) => values.push(text),
            }
        }
        let labels = labels(&values.iter().map(LitStr::value).collect::<Vec<_>>());
        for (at, (value, label)) in values.iter().zip(&labels).enumerate() {
            if label.is_empty() {
                let message = format!("`{}` gives its test no name: it has no letter and no digit", value.value());
                wrong(value.span(), message, problems);
            } else if let Some(first) = labels[..at].iter().position(|other| other == label) {
                let (value, other) = (value.value(), values[first].value());
                let message =
                    format!("the tests of `{other}` and `{value}` would have one name: rename one of the two");
                wrong(values[at].span(), message, problems);
            }
        }
        sound.then(|| Self { word, make, values: values.into_iter().zip(labels).collect() })
    }
}

/// The tests that this function becomes: itself where there is no list.
pub(crate) fn variants(function: &Ident, axes: &[Axis]) -> Vec<Variant> {
    // Not in the order in which they were written: to write them in another order shall rename no test.
    let mut axes: Vec<_> = axes.iter().collect();
    axes.sort_by_key(|axis| axis.word);
    let mut variants = vec![Variant { name: function.clone(), settings: Vec::new() }];
    for Axis { word, make, values } in axes {
        let of_each = variants.iter().flat_map(|variant| {
            values.iter().map(|(value, label)| {
                let name = format_ident!("{}_{word}_{label}", variant.name.unraw(), span = function.span());
                let settings = variant.settings.iter().cloned().chain([make(value.clone())]).collect();
                Variant { name, settings }
            })
        });
        variants = of_each.collect();
    }
    variants
}

fn string(tokens: TokenStream) -> Option<LitStr> {
    syn::parse2(tokens).ok()
}

/// What the values become in names. Of paths, only where they differ.
fn labels(values: &[String]) -> Vec<String> {
    let parts = |value: &str| value.split('/').map(name_part).filter(|part| !part.is_empty()).collect::<Vec<_>>();
    let mut paths: Vec<Vec<String>> = values.iter().map(|value| parts(value)).collect();
    for from_the_end in [false, true] {
        let end = |path: &Vec<String>| if from_the_end { path.last().cloned() } else { path.first().cloned() };
        let same = |paths: &[Vec<String>]| paths.windows(2).all(|two| end(&two[0]) == end(&two[1]));
        while paths.iter().map(Vec::len).min().is_some_and(|least| least > 1) && same(&paths) {
            for path in &mut paths {
                path.remove(if from_the_end { path.len() - 1 } else { 0 });
            }
        }
    }
    paths.into_iter().map(|path| path.join("_")).collect()
}

/// Letters and digits in lower case, with an underscore for whatever is between them.
fn name_part(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("_")
}

#[cfg(test)]
mod tests {
    use super::labels;

    #[track_caller]
    fn check(values: &[&str], expected: &[&str]) {
        assert_eq!(labels(&values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn a_value_becomes_a_part_of_a_name() {
        check(&["cloud-hypervisor", "qemu"], &["cloud_hypervisor", "qemu"]);
        check(&["debian-12", "micro"], &["debian_12", "micro"]);
    }

    #[test]
    fn of_paths_only_what_differs_is_in_a_name() {
        check(&["kernels/5.10/bzImage", "kernels/6.1/bzImage"], &["5_10", "6_1"]);
        check(&["/boot/vmlinuz-6.1", "/boot/vmlinuz-6.12"], &["vmlinuz_6_1", "vmlinuz_6_12"]);
        check(&["a/b", "b"], &["a_b", "b"]);
        check(&["kernels/6.1/bzImage"], &["bzimage"]);
    }
}
