//! What a signature asks for: one parameter, one thing of the cluster.

use proc_macro2::{Ident, Span};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Expr, ExprLit, FnArg, Lit, LitInt, Meta, Pat, PatIdent, PatType, Safety, Token, Type};

use crate::attribute::Settings;
use crate::function::Function;
use crate::keys::Place;
use crate::names::{NAMELESS, host_name};
use crate::problems::Problems;
use crate::setting::Setting;

/// One parameter of the test.
pub(crate) struct Parameter {
    pub(crate) ty: Type,
    /// The host name; of a group, its names joined.
    pub(crate) name: String,
    /// The host names that an array pattern gives to a group.
    pub(crate) names: Vec<String>,
    pub(crate) settings: Vec<Setting>,
    /// `#[cfg(..)]`: the parameter may not exist.
    pub(crate) cfgs: Vec<Attribute>,
}

/// Reads the parameters and takes `#[node(..)]` off them. Problems are reported; the signature stays usable.
pub(crate) fn read(function: &mut Function, problems: &mut Problems) -> Vec<Parameter> {
    check_function(function, problems);
    let mut taken: Vec<String> = Vec::new();
    let mut parameters = Vec::new();
    for input in &mut function.sig.inputs {
        match input {
            FnArg::Receiver(receiver) => {
                problems.at(receiver.self_token.span(), "a test is a free function, it has no `self`");
                settings(&mut receiver.attrs, problems);
            }
            FnArg::Typed(typed) => parameters.extend(parameter(typed, &mut taken, problems)),
        }
    }
    parameters
}

fn check_function(function: &Function, problems: &mut Problems) {
    let sig = &function.sig;
    if sig.asyncness.is_none() {
        // Attributes above have been expanded, and may have made a plain function of it.
        let other = if function.is_test() { ", and remove the other test attribute" } else { "" };
        problems.at(sig.fn_token.span(), format!("a test is asynchronous: write `async fn {}`{other}", sig.ident));
    }
    if let Some(constness) = &sig.constness {
        problems.at(constness.span(), "a test cannot be `const`");
    }
    if let Safety::Unsafe(token) = &sig.safety {
        problems.at(token.span(), "a test cannot be `unsafe`: nobody is there to uphold its contract");
    }
    if let Some(abi) = &sig.abi {
        problems.at(abi.extern_token.span(), "a test cannot be `extern`");
    }
    if let Some(variadic) = &sig.variadic {
        problems.at(variadic.dots.spans[0], "a test cannot be variadic");
    }
    let generics = &sig.generics;
    if let Some(first) = generics.params.first() {
        problems.at(first.span(), "a test cannot be generic: nobody is there to choose the types");
    } else if let Some(clause) = &generics.where_clause {
        problems.at(clause.where_token.span(), "a test cannot have a `where` clause");
    }
}

fn parameter(typed: &mut PatType, taken: &mut Vec<String>, problems: &mut Problems) -> Option<Parameter> {
    let settings = settings(&mut typed.attrs, problems);
    let cfgs: Vec<_> = typed.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect();
    if let Type::ImplTrait(ty) = &*typed.ty {
        problems
            .at(ty.impl_token.span(), "a parameter needs a type of its own, `impl Trait` is none: write `name: Node`");
    }

    let mut name = |ident: &Ident, problems: &mut Problems| {
        let name = host_name(ident).map_err(|message| problems.at(ident.span(), message)).ok()?;
        // Of two that share a name, one may be configured away.
        if cfgs.is_empty() {
            if taken.contains(&name) {
                problems.at(ident.span(), format!("two nodes cannot share the host name `{name}`"));
            }
            taken.push(name.clone());
        }
        Some(name)
    };
    let (name, names) = match &*typed.pat {
        Pat::Slice(slice) => {
            let length = check_length(&slice.elems, &mut typed.ty, slice.bracket_token.span.join(), problems);
            let names: Vec<String> = slice
                .elems
                .iter()
                .filter_map(|element| {
                    let ident = problems.take(identifier(element))?;
                    name(ident, problems)
                })
                .collect();
            // Short of a name, the problem has been reported.
            if names.len() < length {
                return None;
            }
            (names.join("-"), names)
        }
        pattern => (name(problems.take(identifier(pattern))?, problems)?, Vec::new()),
    };
    Some(Parameter { ty: (*typed.ty).clone(), name, names, settings, cfgs })
}

/// The identifier of `name` and `mut name`.
fn identifier(pattern: &Pat) -> syn::Result<&Ident> {
    match pattern {
        Pat::Ident(PatIdent { by_ref: None, subpat: None, ident, .. }) => Ok(ident),
        Pat::Wild(wild) => Err(syn::Error::new(wild.underscore_token.span(), NAMELESS)),
        other => Err(syn::Error::new_spanned(
            other,
            "a pattern gives a node no name: write `name: Node`, or `[a, b]: [Node; 2]` for a group",
        )),
    }
}

/// The number of names in the pattern, held against the type where that is a literal.
fn check_length(names: &Punctuated<Pat, Token![,]>, ty: &mut Type, pattern: Span, problems: &mut Problems) -> usize {
    let named = names.len();
    if named == 0 {
        problems.at(pattern, "a group needs at least one node: write `[a, b]: [Node; 2]`");
    }
    // Of anything else the problem is another one, and `..` stands for any number.
    if !names.iter().all(|name| matches!(name, Pat::Wild(_)) || identifier(name).is_ok()) {
        return named;
    }
    if let Some(literal) = literal_length(ty)
        && literal.base10_parse().is_ok_and(|length: usize| length != named)
    {
        let names = if named == 1 { "name" } else { "names" };
        let message = format!("the pattern has {named} {names}, the array has {literal}: write `{named}` here");
        problems.at(literal.span(), message);
    }
    named
}

/// The length of an array, where it is written as a number.
pub(crate) fn literal_length(ty: &mut Type) -> Option<&mut LitInt> {
    match ty {
        Type::Array(array) => match &mut array.len {
            Expr::Lit(ExprLit { lit: Lit::Int(length), .. }) => Some(length),
            _ => None,
        },
        Type::Group(group) => literal_length(&mut group.elem),
        Type::Paren(paren) => literal_length(&mut paren.elem),
        _ => None,
    }
}

/// Takes `#[node(..)]` off and reads it. Other attributes stay.
fn settings(attrs: &mut Vec<Attribute>, problems: &mut Problems) -> Vec<Setting> {
    let mut settings = Settings::new(Place::Node);
    attrs.retain(|attr| {
        if !attr.path().is_ident("node") {
            return true;
        }
        match &attr.meta {
            Meta::Path(_) => {}
            Meta::List(list) => settings.read(list.tokens.clone(), problems),
            Meta::NameValue(pair) => {
                problems.at(pair.eq_token.span(), "settings stand in parentheses: write `#[node(cpus = 2)]`")
            }
        }
        false
    });
    settings.settings
}
