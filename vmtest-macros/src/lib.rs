//! The attribute of `vmtest`. Use it through that crate; everything it does is in `vmtest-macros-core`.

use proc_macro::TokenStream;

#[doc = include_str!("vm_test.md")]
#[proc_macro_attribute]
pub fn vm_test(args: TokenStream, item: TokenStream) -> TokenStream {
    vmtest_macros_core::expand(args.into(), item.into()).into()
}

/// The same attribute as `#[vm_test]`, under a path that ends in `test`: `#[vmtest::test]`, as `rstest` wants it.
#[proc_macro_attribute]
pub fn test(args: TokenStream, item: TokenStream) -> TokenStream {
    vmtest_macros_core::expand(args.into(), item.into()).into()
}

/// What `vmtest::mimic` gives out as `vm_test`: the same attribute for a test binary without libtest.
#[proc_macro_attribute]
pub fn trial(args: TokenStream, item: TokenStream) -> TokenStream {
    vmtest_macros_core::expand_trial(args.into(), item.into()).into()
}
