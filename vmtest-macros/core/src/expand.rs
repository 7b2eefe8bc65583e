//! The expansion: the user's function inside a plain test that hands a constant and a closure to the harness.

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Path, ReturnType, parse_quote};

use crate::attribute::Settings;
use crate::editor;
use crate::function::Function;
use crate::inert::inert;
use crate::keys::Place;
use crate::matrix::{self, Variant};
use crate::others;
use crate::problems::Problems;
use crate::setting::Setting;
use crate::signature::{self, Parameter};

/// Expands `#[vm_test(args)] item`.
///
/// Never panics. If anything is wrong, the result is one `compile_error!` a problem, each at its place, and the function
/// itself without being a test, so that editors keep their footing.
pub fn expand(args: TokenStream, item: TokenStream) -> TokenStream {
    expand_as(args, item, Form::Test)
}

/// Expands the same for a test binary without libtest, `harness = false`, where nothing would call a `#[test]`: the test is
/// registered for `vmtest::mimic` to run.
///
/// Never panics, as [`expand`].
pub fn expand_trial(args: TokenStream, item: TokenStream) -> TokenStream {
    expand_as(args, item, Form::Trial)
}

/// What a test becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// A `#[test]` of libtest.
    Test,
    /// An entry in the list of trials.
    Trial,
}

fn expand_as(args: TokenStream, item: TokenStream, form: Form) -> TokenStream {
    let mut problems = Problems::default();
    let mut settings = Settings::new(Place::Test);
    settings.read(args.clone(), &mut problems);

    let mut function = match syn::parse2::<Function>(item.clone()) {
        Ok(function) => function,
        Err(error) => {
            problems.push(error);
            return with_errors(problems.into_result(), item);
        }
    };
    let hints = editor::hints(&args, &function.sig);
    others::check(&function.attrs, &mut problems);
    if form == Form::Trial {
        others::check_trial(&function.attrs, &mut problems);
    }
    let parameters = signature::read(&mut function, &mut problems);
    let expansion = match problems.into_result() {
        Ok(()) => matrix::variants(&function.sig.ident, &settings.axes)
            .iter()
            .map(|variant| emit(&function, &settings, variant, &parameters, form))
            .collect(),
        failed => with_errors(failed, inert(function)),
    };
    // First, since the errors have the spans of the keys too.
    quote!(#hints #expansion)
}

fn with_errors(result: syn::Result<()>, item: TokenStream) -> TokenStream {
    let errors = result.err().map(|error| error.to_compile_error());
    quote!(#errors #item)
}

/// Each test has the function for itself: what other attributes put into it, and what it defines, is of that test alone.
fn emit(
    function: &Function,
    settings: &Settings,
    variant: &Variant,
    parameters: &[Parameter],
    form: Form,
) -> TokenStream {
    let Function { attrs, vis, sig, body } = function;
    let (ident, test) = (&sig.ident, &variant.name);
    let krate = settings.krate.clone().unwrap_or_else(|| parse_quote!(::vmtest));
    let test_case = test_case(variant, &krate, settings, parameters);

    let cx = Ident::new(if parameters.is_empty() { "_cx" } else { "cx" }, Span::mixed_site());
    let arguments = parameters.iter().map(|Parameter { cfgs, .. }| quote!(#(#cfgs)* #cx.arg().await));

    // At the return type, so that "the trait is not implemented" for what the body returns points there.
    let place = match &sig.output {
        ReturnType::Default => ident.span(),
        ReturnType::Type(_, ty) => ty.span(),
    };
    // The constant has a block of its own: beside the function it would shadow a `TEST` that the body names.
    let registered = quote! {
        {
            const TEST: #krate::__private::TestCase = #test_case;
            #[#krate::__private::linkme::distributed_slice(#krate::__private::MAKERS)]
            #[linkme(crate = #krate::__private::linkme)]
            static MAKER: #krate::__private::Maker = #krate::__private::Maker::Test(&TEST);
            &TEST
        }
    };
    let call = quote!(async |#cx: &mut #krate::__private::Context| #ident(#(#arguments),*).await);
    match form {
        Form::Test => {
            let make_test = (!function.is_test()).then(|| quote!(#[::core::prelude::v1::test]));
            let run = located_at(place, quote!(#krate::__private::run(#registered, #call,)));
            // Lint levels on the outer function hold for the inner one; a second `#[expect]` would go unfulfilled.
            quote! {
                #(#attrs)*
                #make_test
                #vis fn #test() {
                    #sig #body
                    #run
                }
            }
        }
        Form::Trial => {
            let case = Ident::new("case", Span::mixed_site());
            let run = located_at(place, quote!(#krate::__private::run_trial(#case, #call,)));
            let ignored = if others::is_ignored(attrs) { quote!(true) } else { quote!(false) };
            let attrs = attrs.iter().filter(|attr| !attr.path().is_ident("ignore"));
            quote! {
                const _: () = {
                    #(#attrs)*
                    fn #test(#case: &'static #krate::__private::TestCase) -> #krate::__private::TrialEnd {
                        #sig #body
                        #run
                    }
                    #[#krate::__private::linkme::distributed_slice(#krate::__private::TRIALS)]
                    #[linkme(crate = #krate::__private::linkme)]
                    static VMTEST_TRIAL: #krate::__private::Trial =
                        #krate::__private::Trial { case: #registered, ignored: #ignored, run: #test };
                };
            }
        }
    }
}

/// The outermost of these tokens shown at `place`, though still generated; what is in groups stays where it is.
fn located_at(place: Span, tokens: TokenStream) -> TokenStream {
    let span = Span::call_site().located_at(place);
    let respan = |mut token: TokenTree| {
        token.set_span(span);
        token
    };
    tokens.into_iter().map(respan).collect()
}

fn test_case(variant: &Variant, krate: &Path, settings: &Settings, parameters: &[Parameter]) -> TokenStream {
    let name = variant.name.to_string();
    // With the user's span the line is that of the function, not that of the attribute above it.
    let line = quote_spanned!(variant.name.span()=> ::core::line!());
    let options = tokens(&settings.settings, krate).into_iter().chain(tokens(&variant.settings, krate));
    let params = parameters.iter().map(|Parameter { ty, name, names, settings, cfgs }| {
        let settings = tokens(settings, krate);
        quote! {
            #(#cfgs)*
            #krate::__private::Parameter::of::<#ty>(#krate::__private::Param {
                name: #name,
                names: &[#(#names),*],
                settings: &[#(#settings),*],
            })
        }
    });
    quote! {
        #krate::__private::TestCase {
            module: ::core::module_path!(),
            name: #name,
            file: ::core::file!(),
            line: #line,
            package: ::core::env!("CARGO_PKG_NAME"),
            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
            options: &[#(#options),*],
            params: &[#(#params),*],
        }
    }
}

fn tokens(settings: &[Setting], krate: &Path) -> Vec<impl ToTokens> {
    settings.iter().map(|setting| setting.to_tokens(krate)).collect()
}
