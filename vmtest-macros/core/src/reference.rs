//! The page of the book with every key, from the table.

use crate::keys::{CAPABILITIES, Form, KEYS, Key, PLACES, Place};

/// The page, as Markdown. What a key means stands in the page for users, in a row of its own for each.
pub fn reference() -> String {
    let mut page = "# Keys\n\n\
        <!-- Written by a test: see the end of this page. -->\n\n\
        Every key of `#[vm_test(..)]`, and of `#[node(..)]` before a parameter. The [attribute](attribute.md) has what each \
        means at length.\n\n\
        | key | on | written | its value | more than once | meaning |\n|---|---|---|---|---|---|\n"
        .to_owned();
    let meanings = include_str!("vm_test.md");
    for key in KEYS {
        for row in meanings.lines().filter_map(|line| row_of(key, line)) {
            let Row { on, written, meaning } = row;
            let repeated = if key.is_repeatable() { "yes" } else { "" };
            let value = value(key.form);
            page += &format!("| `{}` | {on} | {written} | {value} | {repeated} | {meaning} |\n", key.name);
        }
    }
    page += "\n`#[node(..)]` takes ";
    page += &names(KEYS.iter().filter(|key| key.is_valid_on(Place::Node)).map(|key| key.name));
    page += "; `#[vm_test(..)]` takes ";
    page += &names(KEYS.iter().filter(|key| key.is_valid_on(Place::Test)).map(|key| key.name));
    page += ".\n\n---\n\nThis page is made of the macro's own table by `vmtest-macros/core/tests/reference.rs`, which fails \
        when they differ; `UPDATE_EXPECT=1` writes it anew.\n";
    page
}

struct Row<'a> {
    on: &'a str,
    written: &'a str,
    meaning: String,
}

/// A line of the table for users, if it is about this key.
fn row_of<'a>(key: &Key, line: &'a str) -> Option<Row<'a>> {
    let cells = line.strip_prefix(&format!("| `{}` | ", key.name))?.strip_suffix(" |")?;
    let mut cells = cells.splitn(3, " | ");
    let (on, written, meaning) = (cells.next()?, cells.next()?, cells.next()?);
    Some(Row { on, written, meaning: meaning.replace("see below", "see [attribute](attribute.md)") })
}

/// What may be written after the `=`, or in the parentheses.
fn value(form: Form) -> String {
    match form {
        Form::Text(_) => "text".to_owned(),
        Form::Choice(..) => "text; on the test also a list, which makes one test each".to_owned(),
        Form::Image => {
            "text, or the path of a function; on the test also a list of texts, which makes one test each".to_owned()
        }
        Form::Flag(_) => "`true`, `false`".to_owned(),
        Form::Count(_) => "a whole number, at least 1".to_owned(),
        Form::Size(_) => "a size in bytes with a unit".to_owned(),
        Form::Rate(_) => "bits a second with a unit".to_owned(),
        Form::Duration(_) => "a duration with units".to_owned(),
        Form::Ip(_) => "an IPv4 address".to_owned(),
        Form::Mac(_) => "a hardware address".to_owned(),
        Form::Fixture => "a directory; `at`, `label`".to_owned(),
        Form::Volume => "a name; `at`, `size`, `access`".to_owned(),
        Form::Network => format!("a name; `ip`, `mac`. Or, after `=`, {}", names(PLACES.iter().map(|(name, _)| *name))),
        Form::Texts(_) => "texts".to_owned(),
        Form::Allow(allowed) => names(allowed.iter().map(|(name, _)| *name)),
        Form::Requires => names(CAPABILITIES.iter().map(|(name, _)| *name)),
        Form::Budget => "`nodes`; `memory`, `cpus`, `disk`".to_owned(),
        Form::Crate => "a path in a text".to_owned(),
    }
}

fn names<'a>(all: impl Iterator<Item = &'a str>) -> String {
    all.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
