//! The grammar inside the parentheses: `key`, `key = value` and `key(..)`, separated by commas.
//!
//! Split before it is parsed, so that one bad entry does not hide the problems of the next.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::{Token, token};

use crate::problems::Problems;

/// One entry of a list.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: Ident,
    pub(crate) value: Value,
}

/// What follows a key.
#[derive(Debug)]
pub(crate) enum Value {
    /// `key`, or `key =`
    Missing,
    /// `key = tokens`
    Assigned(TokenStream),
    /// `key(..)`
    List(Group),
}

impl Parse for Entry {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = Ident::parse_any(input)
            .map_err(|error| syn::Error::new(error.span(), "expected a key, as in `memory = \"512MiB\"`"))?;
        let value = if input.is_empty() {
            Value::Missing
        } else if input.peek(token::Paren) {
            Value::List(input.parse()?)
        } else if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            match input.parse::<TokenStream>()? {
                tokens if tokens.is_empty() => Value::Missing,
                tokens => Value::Assigned(tokens),
            }
        } else {
            return Err(input.error(format!("expected `=` or `(` after `{name}`")));
        };
        if !input.is_empty() {
            return Err(input.error(format!("expected a comma after `{name}(..)`")));
        }
        Ok(Self { name, value })
    }
}

/// The parts between the commas. A comma may follow the last one.
pub(crate) fn split(tokens: TokenStream, problems: &mut Problems) -> Vec<TokenStream> {
    let mut parts = Vec::new();
    let mut part = TokenStream::new();
    for token in tokens {
        match token {
            TokenTree::Punct(comma) if comma.as_char() == ',' => {
                if part.is_empty() {
                    problems.at(comma.span(), "nothing stands before this comma");
                } else {
                    parts.push(std::mem::take(&mut part));
                }
            }
            token => part.extend([token]),
        }
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// The span of all the tokens, or of `otherwise` if there are none.
pub(crate) fn span_of(tokens: &TokenStream, otherwise: Span) -> Span {
    let mut spans = tokens.clone().into_iter().map(|token| token.span());
    let Some(first) = spans.next() else {
        return otherwise;
    };
    // Only a nightly compiler can join spans; the first token is the next best place.
    spans.last().and_then(|last| first.join(last)).unwrap_or(first)
}
