//! One setting, as the macro hands it to the harness.

use proc_macro2::{Ident, TokenStream};
use quote::quote;
use syn::{LitStr, Path};

/// Mirrors `vmtest::__private::Setting`. Strings keep the user's spans.
pub(crate) enum Setting {
    Image(LitStr),
    Cpus(u32),
    /// In bytes.
    Memory(u64),
    /// In bytes.
    Disk(u64),
    Fixture(Fixture),
    /// In milliseconds.
    Timeout(u64),
    KernelArgs(LitStr),
    Backend(LitStr),
    Nodes(u32),
    /// A variant of `vmtest::__private::Allow`.
    Allow(Ident),
}

/// A directory of the package that becomes a disk of the node.
pub(crate) struct Fixture {
    pub(crate) dir: LitStr,
    /// Where the guest mounts it.
    pub(crate) at: Option<LitStr>,
    /// The label of its file system.
    pub(crate) label: Option<LitStr>,
}

impl Setting {
    /// The expression that makes this setting, below the crate at `krate`.
    pub(crate) fn to_tokens(&self, krate: &Path) -> TokenStream {
        let variant = match self {
            Self::Image(name) => quote!(Image(#name)),
            Self::Cpus(count) => quote!(Cpus(#count)),
            Self::Memory(bytes) => quote!(Memory(#bytes)),
            Self::Disk(bytes) => quote!(Disk(#bytes)),
            Self::Fixture(fixture) => {
                let Fixture { dir, at, label } = fixture;
                let (at, label) = (option(at.as_ref()), option(label.as_ref()));
                quote!(Fixture { dir: #dir, at: #at, label: #label })
            }
            Self::Timeout(milliseconds) => quote!(Timeout(#milliseconds)),
            Self::KernelArgs(text) => quote!(KernelArgs(#text)),
            Self::Backend(name) => quote!(Backend(#name)),
            Self::Nodes(count) => quote!(Nodes(#count)),
            Self::Allow(what) => quote!(Allow(#krate::__private::Allow::#what)),
        };
        quote!(#krate::__private::Setting::#variant)
    }
}

fn option(value: Option<&LitStr>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}
