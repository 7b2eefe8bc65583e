//! The function as it stands beside an error: no test, and with what was said put right, so that rustc does not say it
//! a second time. Editors keep their footing in its body, and its callers compile.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::punctuated::Punctuated;
use syn::{FnArg, LitInt, Pat, PatType, PatWild, Signature, Token, Type, token};

use crate::function::Function;
use crate::others;
use crate::signature::literal_length;

/// The tokens of the function without what makes it a test.
pub(crate) fn inert(function: Function) -> TokenStream {
    let Function { mut attrs, vis, mut sig, body } = function;
    if attrs.iter().any(others::is_rstest) {
        // Without it nobody knows its attributes any more.
        attrs.clear();
        parameters(&mut sig).for_each(|typed| typed.attrs.clear());
    }
    attrs.retain(others::may_stay_beside_an_error);
    put_right(&mut sig);
    quote! {
        #(#attrs)*
        #[allow(dead_code, unused)]
        #vis #sig #body
    }
}

fn put_right(sig: &mut Signature) {
    sig.constness = None;
    sig.variadic = None;
    sig.asyncness.get_or_insert_with(|| Token![async](Span::call_site()));

    let mut bound: Vec<String> = Vec::new();
    for PatType { attrs, pat, ty, .. } in parameters(sig) {
        if let Pat::Slice(slice) = &mut **pat {
            put_length_right(&slice.elems, ty);
        }
        // Of two that share a name, one may be configured away.
        if attrs.iter().any(|attr| attr.path().is_ident("cfg")) {
            continue;
        }
        match &mut **pat {
            Pat::Slice(slice) => slice.elems.iter_mut().for_each(|pat| forget_second(pat, &mut bound)),
            pat => forget_second(pat, &mut bound),
        }
    }
}

fn parameters(sig: &mut Signature) -> impl Iterator<Item = &mut PatType> {
    sig.inputs.iter_mut().filter_map(|input| match input {
        FnArg::Typed(typed) => Some(typed),
        FnArg::Receiver(_) => None,
    })
}

fn put_length_right(names: &Punctuated<Pat, Token![,]>, ty: &mut Type) {
    if names.iter().any(|name| !matches!(name, Pat::Ident(_) | Pat::Wild(_))) {
        return;
    }
    if let Some(length) = literal_length(ty) {
        *length = LitInt::new(&names.len().to_string(), length.span());
    }
}

/// Binds a name that was bound before no more.
fn forget_second(pat: &mut Pat, bound: &mut Vec<String>) {
    let Pat::Ident(name) = pat else { return };
    let written = name.ident.to_string();
    if bound.contains(&written) {
        let underscore_token = token::Underscore(name.ident.span());
        *pat = Pat::Wild(PatWild { attrs: Vec::new(), underscore_token });
    } else {
        bound.push(written);
    }
}
