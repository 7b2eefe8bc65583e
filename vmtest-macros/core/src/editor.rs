//! What an editor needs to complete keys. Rustc drops it.
//!
//! rust-analyzer knows nothing of the arguments of an attribute. To complete a name it puts a made-up one at the cursor,
//! expands the macro with and without it, and offers what could stand where that name came out. So the expansion imports
//! every key that was written, with the user's span, from a module that has all the keys of its place. It does so where
//! none was written too, as the two expansions have to resemble each other.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::quote;
use syn::{FnArg, Meta, Signature};

use crate::attribute::{IN_NETWORK, in_budget};
use crate::disks::{IN_FIXTURE, IN_VOLUME};
use crate::grammar::split;
use crate::keys::{CAPABILITIES, KEYS, Place};
use crate::problems::Problems;

/// The keys of one place, each with an example, and those that were written there.
struct Keys {
    place: &'static str,
    valid: Vec<(&'static str, &'static str)>,
    /// `None` where there are no parentheses to write any.
    written: Option<Vec<Ident>>,
}

/// An item with the imports; to be called before `#[node(..)]` is taken off, and to be put before any error, since those
/// have the spans of the keys as well.
pub(crate) fn hints(args: &TokenStream, sig: &Signature) -> TokenStream {
    if sig.receiver().is_some() {
        // Among methods there is no place for it.
        return TokenStream::new();
    }
    let mut test = Keys::at("test", Place::Test);
    let mut node = Keys::at("node", Place::Node);
    let mut nested = [
        Keys { place: "fixture", valid: IN_FIXTURE.to_vec(), written: None },
        Keys { place: "volume", valid: IN_VOLUME.to_vec(), written: None },
        Keys { place: "network", valid: IN_NETWORK.to_vec(), written: None },
        Keys { place: "budget", valid: in_budget(), written: None },
        Keys { place: "requires", valid: CAPABILITIES.to_vec(), written: None },
    ];

    test.read(args.clone(), &mut nested);
    for input in &sig.inputs {
        let FnArg::Typed(typed) = input else { continue };
        for attr in typed.attrs.iter().filter(|attr| attr.path().is_ident("node")) {
            if let Meta::List(list) = &attr.meta {
                node.read(list.tokens.clone(), &mut nested);
            }
        }
    }

    let modules = [test, node].into_iter().chain(nested).filter_map(Keys::module);
    quote! {
        // Which cfgs there are is up to the crate of the test, and it has not heard of this one.
        #[allow(unexpected_cfgs)]
        const _: () = {
            #(#[cfg(rust_analyzer)] #modules)*
        };
    }
}

impl Keys {
    fn at(name: &'static str, place: Place) -> Self {
        let valid = KEYS.iter().filter(|key| key.is_valid_on(place)).map(|key| (key.name, key.example)).collect();
        Self { place: name, valid, written: None }
    }

    /// Takes what stands for the key in each of these entries, here and in the parentheses of those that have keys of
    /// their own.
    fn read(&mut self, tokens: TokenStream, nested: &mut [Self]) {
        let written = self.written.get_or_insert_default();
        // What is wrong is reported where they are read in earnest.
        for part in split(tokens, &mut Problems::default()) {
            let mut part = part.into_iter();
            let Some(key) = part.next() else { continue };
            if let (TokenTree::Ident(key), Some(TokenTree::Group(group))) = (&key, part.next())
                && let Some(nested) = nested.iter_mut().find(|nested| key == nested.place)
            {
                let parts = split(group.stream(), &mut Problems::default());
                let keys = parts.into_iter().filter_map(|part| importable(part.into_iter().next()?));
                nested.written.get_or_insert_default().extend(keys);
            }
            written.extend(importable(key));
        }
    }

    fn module(self) -> Option<TokenStream> {
        let Self { place, valid, written } = self;
        let written = written?;
        let place = Ident::new(place, Span::mixed_site());
        let keys = valid.iter().filter_map(|(key, example)| {
            let key: Ident = syn::parse_str(key).ok()?;
            Some(quote!(#[doc = #example] pub fn #key() {}))
        });
        Some(quote! {
            mod #place {
                #(#keys)*
                use self::{#(#written as _),*};
            }
        })
    }
}

/// A name that can be imported: a keyword cannot, and neither can a literal.
fn importable(token: TokenTree) -> Option<Ident> {
    syn::parse2(token.into()).ok()
}
