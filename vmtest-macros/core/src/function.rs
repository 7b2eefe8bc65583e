//! The function under the attribute. Its body stays a token: what is in it is the compiler's business.

use proc_macro2::{Delimiter, TokenTree};
use syn::parse::{Parse, ParseStream};
use syn::{Attribute, Signature, Token, Visibility, token};

use crate::others;

/// A function whose body has not been parsed.
pub(crate) struct Function {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) sig: Signature,
    pub(crate) body: TokenTree,
}

impl Parse for Function {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let starts_a_function = input.peek(Token![fn])
            || input.peek(Token![async])
            || input.peek(Token![unsafe])
            || input.peek(Token![const])
            || input.peek(Token![extern]);
        if !starts_a_function {
            return Err(input.error("this attribute goes on an `async fn`"));
        }
        let sig = input.parse()?;
        if !input.peek(token::Brace) {
            return Err(input.error("a test needs a body"));
        }
        let body = unwrapped(input.parse()?);
        Ok(Self { attrs, vis, sig, body })
    }
}

impl Function {
    /// Whether an attribute of the user's already makes it a test.
    pub(crate) fn is_test(&self) -> bool {
        self.attrs.iter().any(others::makes_a_test)
    }
}

/// The group itself, without the invisible one around the `$body:block` of a `macro_rules!`.
fn unwrapped(body: TokenTree) -> TokenTree {
    match body {
        TokenTree::Group(group) if group.delimiter() == Delimiter::None => {
            let mut inner = group.stream().into_iter();
            inner.next().map_or(TokenTree::Group(group), unwrapped)
        }
        body => body,
    }
}
