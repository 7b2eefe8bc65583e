//! What stands inside `#[vm_test(..)]` and `#[node(..)]`, checked against the table of keys.

use proc_macro2::{Group, Ident, Span, TokenStream};
use syn::{Lit, LitStr, Path};

use crate::addresses;
use crate::disks::{fixture, volume};
use crate::grammar::{Entry, Value, span_of, split};
use crate::keys::{self, CAPABILITIES, Form, Key, PHASES, PLACES, Place};
use crate::matrix::{Axis, brackets};
use crate::problems::Problems;
use crate::setting::{Budget, Network, Setting};
use crate::units;

/// The settings of one test or one node, in the order in which they were written.
pub(crate) struct Settings {
    place: Place,
    seen: Vec<&'static str>,
    pub(crate) settings: Vec<Setting>,
    /// Lists, of which each value has a test of its own.
    pub(crate) axes: Vec<Axis>,
    /// The path of this library, if it is not `::vmtest`.
    pub(crate) krate: Option<Path>,
}

impl Settings {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, seen: Vec::new(), settings: Vec::new(), axes: Vec::new(), krate: None }
    }

    /// Reads the tokens between the parentheses. Whatever is wrong goes to `problems`, the rest is kept.
    pub(crate) fn read(&mut self, tokens: TokenStream, problems: &mut Problems) {
        for part in split(tokens, problems) {
            if let Some(entry) = problems.take(syn::parse2::<Entry>(part)) {
                self.entry(entry, problems);
            }
        }
    }

    fn entry(&mut self, Entry { name, value }: Entry, problems: &mut Problems) {
        let key = match keys::find(&name.to_string(), self.place) {
            Ok(key) => key,
            Err(message) => return problems.at(name.span(), message),
        };
        if self.seen.contains(&key.name) && !key.is_repeatable() {
            problems.at(name.span(), format!("duplicate key `{}`: {} takes it once", key.name, self.place));
        }
        self.seen.push(key.name);

        match (key.form, brackets(&value)) {
            (Form::Choice(make, word), Some(list)) => {
                return self.axes.extend(Axis::read(key, (make, word), &list, self.place, problems));
            }
            (Form::Image, Some(list)) => {
                return self.axes.extend(Axis::read(key, (Setting::Image, "with"), &list, self.place, problems));
            }
            _ => {}
        }
        if let (Form::Image, Some(function)) = (key.form, path(&value)) {
            return self.settings.push(Setting::ImageOf(function));
        }
        let setting = match key.form {
            Form::Text(make) | Form::Choice(make, _) => text(key, &name, value).map(make),
            Form::Image => text(key, &name, value).map(Setting::Image),
            Form::Flag(make) => flag(key, &name, value).map(make),
            Form::Count(make) => count(key, &name, value).map(make),
            Form::Size(make) => text(key, &name, value).and_then(|text| parse(&text, units::bytes)).map(make),
            Form::Duration(make) => {
                text(key, &name, value).and_then(|text| parse(&text, units::milliseconds)).map(make)
            }
            Form::Rate(make) => text(key, &name, value).and_then(|text| parse(&text, units::bits_a_second)).map(make),
            Form::Ip(make) => text(key, &name, value).and_then(|text| parse(&text, addresses::ip)).map(make),
            Form::Mac(make) => text(key, &name, value).and_then(|text| parse(&text, addresses::mac)).map(make),
            Form::Fixture => match fixture(key, &name, value, problems) {
                Ok(Some(fixture)) => Ok(Setting::Fixture(fixture)),
                Ok(None) => return,
                Err(error) => Err(error),
            },
            Form::Volume => match volume(key, &name, value, problems) {
                Ok(Some(volume)) => Ok(Setting::Volume(volume)),
                Ok(None) => return,
                Err(error) => Err(error),
            },
            Form::Network if self.place == Place::Test && matches!(value, Value::Assigned(_)) => {
                if self.settings.iter().any(|setting| matches!(setting, Setting::Place(_))) {
                    problems.at(name.span(), "networks are in one place: leave one `network = \"..\"` out");
                }
                text(key, &name, value).and_then(|text| place(&text))
            }
            Form::Network => match network(key, &name, value, self.place, problems) {
                Ok(Some(network)) => Ok(Setting::Network(network)),
                Ok(None) => return,
                Err(error) => Err(error),
            },
            Form::Texts(make) => match texts(key, &name, value, problems) {
                Ok(texts) => return self.settings.extend(texts.into_iter().map(make)),
                Err(error) => Err(error),
            },
            Form::Allow(valid) => match allowed(key, &name, value, valid, problems) {
                Ok(allowed) => return self.settings.extend(allowed),
                Err(error) => Err(error),
            },
            Form::Requires => match required(key, &name, value, problems) {
                Ok(required) => return self.settings.extend(required),
                Err(error) => Err(error),
            },
            Form::Budget => match budget(key, &name, value, problems) {
                Ok(budgets) => return self.settings.extend(budgets),
                Err(error) => Err(error),
            },
            Form::Crate => {
                match text(key, &name, value).and_then(|text| crate_path(&text)) {
                    Ok(path) => self.krate = Some(path),
                    Err(error) => problems.push(error),
                }
                return;
            }
        };
        self.settings.extend(problems.take(setting));
    }
}

/// The path of `key = path`; `true` and `false` are none.
fn path(value: &Value) -> Option<Path> {
    let Value::Assigned(tokens) = value else { return None };
    syn::parse2::<Lit>(tokens.clone()).is_err().then(|| syn::parse2(tokens.clone()).ok()).flatten()
}

/// The one literal of `key = literal`.
fn literal(key: &Key, name: &Ident, value: Value) -> syn::Result<Lit> {
    match value {
        Value::Missing => {
            Err(syn::Error::new(name.span(), format!("`{}` needs a value: write `{}`", key.name, key.example)))
        }
        Value::List(group) => Err(wrong_type(key, group.span())),
        Value::Assigned(tokens) => {
            let span = span_of(&tokens, name.span());
            syn::parse2(tokens).map_err(|_| wrong_type(key, span))
        }
    }
}

fn wrong_type(key: &Key, span: Span) -> syn::Error {
    let wanted = match key.form {
        Form::Text(_) | Form::Choice(..) => "a string",
        Form::Image => "a string, or the path of a function that makes one",
        Form::Flag(_) => "`true` or `false`",
        Form::Count(_) => "a whole number, at least 1",
        Form::Size(_) => "a size, a string with a unit",
        Form::Duration(_) => "a duration, a string with a unit",
        Form::Rate(_) => "a rate, a string with a unit",
        Form::Ip(_) => "an IPv4 address in a string",
        Form::Mac(_) => "a hardware address in a string",
        Form::Fixture => "a directory in parentheses",
        Form::Network | Form::Volume => "a name in parentheses",
        Form::Budget => "machines or phases in parentheses",
        Form::Allow(_) | Form::Texts(_) => "strings in parentheses",
        Form::Requires => "names in parentheses",
        Form::Crate => "a path in a string",
    };
    syn::Error::new(span, format!("`{}` takes {wanted}: write `{}`", key.name, key.example))
}

fn text(key: &Key, name: &Ident, value: Value) -> syn::Result<LitStr> {
    match literal(key, name, value)? {
        Lit::Str(text) => Ok(text),
        other => Err(wrong_type(key, other.span())),
    }
}

fn flag(key: &Key, name: &Ident, value: Value) -> syn::Result<bool> {
    match literal(key, name, value)? {
        Lit::Bool(flag) => Ok(flag.value),
        other => Err(wrong_type(key, other.span())),
    }
}

fn count(key: &Key, name: &Ident, value: Value) -> syn::Result<u32> {
    let literal = literal(key, name, value)?;
    match &literal {
        Lit::Int(number) => number.base10_parse().ok().filter(|number| *number > 0),
        _ => None,
    }
    .ok_or_else(|| wrong_type(key, literal.span()))
}

pub(crate) fn parse<T>(text: &LitStr, unit: fn(&str) -> Result<T, String>) -> syn::Result<T> {
    unit(&text.value()).map_err(|message| syn::Error::new(text.span(), message))
}

fn crate_path(text: &LitStr) -> syn::Result<Path> {
    // As if the macro had written it, so that no lint of the user's speaks about generated paths.
    let span = Span::call_site().located_at(text.span());
    LitStr::new(&text.value(), span)
        .parse_with(Path::parse_mod_style)
        .map_err(|_| syn::Error::new(text.span(), format!("`{}` is not the path of a crate", text.value())))
}

/// What stands in the parentheses of `key(..)`, where it needs something.
fn parenthesised(key: &Key, name: &Ident, value: Value, needs: &str) -> syn::Result<Group> {
    match value {
        Value::List(group) if !group.stream().is_empty() => Ok(group),
        Value::List(_) | Value::Missing => {
            let message = format!("`{}` needs {needs}: write `{}`", key.name, key.example);
            Err(syn::Error::new(name.span(), message))
        }
        Value::Assigned(tokens) => Err(wrong_type(key, span_of(&tokens, name.span()))),
    }
}

/// The strings in parentheses; what is none is reported.
fn texts(key: &Key, name: &Ident, value: Value, problems: &mut Problems) -> syn::Result<Vec<LitStr>> {
    let group = parenthesised(key, name, value, "a value")?;
    let mut texts = Vec::new();
    for part in split(group.stream(), problems) {
        let span = span_of(&part, group.span());
        texts.extend(problems.take(syn::parse2::<LitStr>(part).map_err(|_| wrong_type(key, span))));
    }
    Ok(texts)
}

/// Those of the strings in parentheses that are valid; the others are reported.
fn allowed(
    key: &Key,
    name: &Ident,
    value: Value,
    valid: &[(&str, &str)],
    problems: &mut Problems,
) -> syn::Result<Vec<Setting>> {
    let mut allowed = Vec::new();
    for text in texts(key, name, value, problems)? {
        let variant = problems.take(one_of(&text, key.name, valid));
        allowed.extend(variant.map(|variant| Setting::Allow(Ident::new(variant, Span::call_site()))));
    }
    Ok(allowed)
}

/// What the table has for this word, which is a value of this key.
pub(crate) fn one_of<'a, T>(text: &LitStr, key: &str, valid: &'a [(&str, T)]) -> syn::Result<&'a T> {
    let written = text.value();
    valid.iter().find(|(word, _)| *word == written).map(|(_, what)| what).ok_or_else(|| {
        let words: Vec<&str> = valid.iter().map(|(word, _)| *word).collect();
        syn::Error::new(text.span(), keys::unknown_value(&written, key, &words))
    })
}

/// Those of the names in parentheses that are capabilities; the others are reported.
fn required(key: &Key, name: &Ident, value: Value, problems: &mut Problems) -> syn::Result<Vec<Setting>> {
    let group = parenthesised(key, name, value, "a name")?;
    let (mut required, mut seen) = (Vec::new(), Vec::new());
    for part in split(group.stream(), problems) {
        let span = span_of(&part, group.span());
        let Some(word) = problems.take(syn::parse2::<Ident>(part).map_err(|_| wrong_type(key, span))) else {
            continue;
        };
        let written = word.to_string();
        match CAPABILITIES.iter().find(|(name, _)| *name == written) {
            Some(_) if seen.contains(&written) => {
                problems.at(word.span(), format!("`{written}` is required already: write it once"));
            }
            Some((_, variant)) => required.push(Setting::Requires(Ident::new(variant, Span::call_site()))),
            None => {
                let names: Vec<&str> = CAPABILITIES.iter().map(|(name, _)| *name).collect();
                problems.at(word.span(), keys::unknown_value(&written, key.name, &names));
            }
        }
        seen.push(written);
    }
    Ok(required)
}

/// Where the test's networks are.
fn place(text: &LitStr) -> syn::Result<Setting> {
    let written = text.value();
    match PLACES.iter().find(|(name, _)| *name == written) {
        Some((_, variant)) => Ok(Setting::Place(Ident::new(variant, Span::call_site()))),
        None => {
            let names: Vec<&str> = PLACES.iter().map(|(name, _)| *name).collect();
            let unknown = keys::unknown_value(&written, "network =", &names);
            let named = format!("a network of this name is `network(\"{written}\")`");
            Err(syn::Error::new(text.span(), format!("{unknown}; {named}")))
        }
    }
}

/// The keys inside `budget(..)` that say what machines have that join later, with examples.
const OF_MACHINES: [(&str, &str); 4] =
    [("nodes", "nodes = 3"), ("memory", r#"memory = "1GiB""#), ("cpus", "cpus = 2"), ("disk", r#"disk = "8GiB""#)];

/// All keys inside `budget(..)`, with examples.
pub(crate) fn in_budget() -> Vec<(&'static str, &'static str)> {
    OF_MACHINES.into_iter().chain(PHASES.iter().map(|phase| (phase.name, phase.example))).collect()
}

/// Room for machines that join later, and limits of phases. What is wrong has been reported.
fn budget(key: &Key, name: &Ident, value: Value, problems: &mut Problems) -> syn::Result<Vec<Setting>> {
    let group = parenthesised(key, name, value, "a number of machines or the limit of a phase")?;
    let (mut nodes, mut budget, mut seen, mut limits) = (None, Budget::default(), Vec::new(), Vec::new());
    for part in split(group.stream(), problems) {
        let Some(Entry { name, value }) = problems.take(syn::parse2::<Entry>(part)) else {
            continue;
        };
        let written = name.to_string();
        // What machines have is written as it is on a test.
        let of_machine = keys::KEYS.iter().find(|key| key.name == written && is_of_machines(key.name));
        let Some(inner) = of_machine.or_else(|| PHASES.iter().find(|phase| phase.name == written)) else {
            let valid: Vec<&str> = in_budget().iter().map(|(key, _)| *key).collect();
            problems.at(name.span(), keys::unknown(&written, "a budget", &valid));
            continue;
        };
        if seen.contains(&inner.name) {
            problems.at(name.span(), format!("duplicate key `{written}`: a budget takes it once"));
        }
        seen.push(inner.name);
        match (inner.name, inner.form) {
            (_, Form::Duration(make)) => {
                let limit = text(inner, &name, value).and_then(|text| parse(&text, units::milliseconds));
                limits.extend(problems.take(limit).map(make));
            }
            ("nodes", _) => nodes = Some(problems.take(count(inner, &name, value)).unwrap_or(1)),
            ("cpus", _) => budget.cpus = problems.take(count(inner, &name, value)),
            (of, _) => {
                let size = text(inner, &name, value).and_then(|text| parse(&text, units::bytes));
                let slot = if of == "memory" { &mut budget.memory } else { &mut budget.disk };
                *slot = problems.take(size);
            }
        }
    }
    match nodes {
        Some(nodes) => limits.push(Setting::Budget(Budget { nodes, ..budget })),
        None if seen.iter().any(|key| is_of_machines(key)) => {
            let message = format!("`{}` needs the number of its machines: write `{}`", key.name, key.example);
            problems.at(name.span(), message);
        }
        None => {}
    }
    Ok(limits)
}

fn is_of_machines(name: &str) -> bool {
    OF_MACHINES.iter().any(|(key, _)| *key == name)
}

/// The keys inside of `network(..)`.
pub(crate) const IN_NETWORK: &[(&str, &str)] =
    &[("ip", r#"ip = "10.77.1.50""#), ("mac", r#"mac = "52:54:00:00:00:50""#)];

/// `None` if there was a problem and it has been reported.
fn network(
    key: &Key,
    name: &Ident,
    value: Value,
    place: Place,
    problems: &mut Problems,
) -> syn::Result<Option<Network>> {
    let (on, [ip, mac]) = string_and_keys(key, name, value, IN_NETWORK, ("name", "a network"), problems)?;
    if let (Place::Test, Some(address)) = (place, ip.as_ref().or(mac.as_ref())) {
        let message = "a network of the test has no address of a machine: write it into `#[node(network(..))]`";
        problems.at(address.span(), message);
    }
    let ip = ip.and_then(|ip| problems.take(parse(&ip, addresses::ip)));
    let mac = mac.and_then(|mac| problems.take(parse(&mac, addresses::mac)));
    Ok(on.map(|name| Network { name, ip, mac }))
}

/// What stands in `key("..", a = "..", b = "..")`, of which only the first is needed. What is `first` called, and the whole?
pub(crate) fn string_and_keys<const N: usize>(
    key: &Key,
    name: &Ident,
    value: Value,
    valid: &[(&str, &str)],
    (first_is, whole): (&str, &str),
    problems: &mut Problems,
) -> syn::Result<(Option<LitStr>, [Option<LitStr>; N])> {
    let group = parenthesised(key, name, value, &format!("a {first_is}"))?;
    let mut parts = split(group.stream(), problems).into_iter();
    let first = parts.next().unwrap_or_default();
    let span = span_of(&first, group.span());
    let first = syn::parse2::<LitStr>(first).map_err(|_| {
        syn::Error::new(span, format!("the first value of `{}` is its {first_is}: write `{}`", key.name, key.example))
    });
    let first = problems.take(first);

    let mut values = [const { None }; N];
    for part in parts {
        let Some(Entry { name, value }) = problems.take(syn::parse2::<Entry>(part)) else {
            continue;
        };
        let written = name.to_string();
        let slot = valid.iter().position(|(key, _)| *key == written).and_then(|place| values.get_mut(place));
        let Some(slot) = slot else {
            let valid: Vec<&str> = valid.iter().map(|(key, _)| *key).collect();
            problems.at(name.span(), keys::unknown(&written, whole, &valid));
            continue;
        };
        if slot.is_some() {
            problems.at(name.span(), format!("duplicate key `{written}`: {whole} takes it once"));
        }
        let value = match value {
            Value::Assigned(tokens) => {
                let span = span_of(&tokens, name.span());
                syn::parse2::<LitStr>(tokens).map_err(|_| span)
            }
            Value::List(group) => Err(group.span()),
            Value::Missing => Err(name.span()),
        };
        match value {
            Ok(value) => *slot = Some(value),
            Err(span) => problems.at(span, format!("`{written}` takes a string: write `{written} = \"..\"`")),
        }
    }
    Ok((first, values))
}
