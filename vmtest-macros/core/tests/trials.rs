//! What the attribute becomes in a test binary without libtest.

use std::str::FromStr;

use expect_test::expect;
use proc_macro2::TokenStream;

fn expand(args: &str, item: &str) -> TokenStream {
    vmtest_macros_core::expand_trial(
        TokenStream::from_str(args).expect("the test is made of tokens"),
        TokenStream::from_str(item).expect("the test is made of tokens"),
    )
}

#[test]
fn a_trial_is_registered_and_no_test() {
    let item = "#[ignore = \"slow\"] #[allow(dead_code)] pub async fn boots(node: Node) -> Result { Ok(()) }";
    let mut file: syn::File = syn::parse2(expand("", item)).expect("an expansion is a list of items");
    // The first item is for editors.
    file.items.remove(0);
    expect![[r#"
        const _: () = {
            #[allow(dead_code)]
            fn boots(
                case: &'static ::vmtest::__private::TestCase,
            ) -> ::vmtest::__private::TrialEnd {
                async fn boots(node: Node) -> Result {
                    Ok(())
                }
                ::vmtest::__private::run_trial(
                    case,
                    async |cx: &mut ::vmtest::__private::Context| boots(cx.arg().await).await,
                )
            }
            #[::vmtest::__private::linkme::distributed_slice(::vmtest::__private::TRIALS)]
            #[linkme(crate = ::vmtest::__private::linkme)]
            static VMTEST_TRIAL: ::vmtest::__private::Trial = ::vmtest::__private::Trial {
                case: {
                    const TEST: ::vmtest::__private::TestCase = ::vmtest::__private::TestCase {
                        module: ::core::module_path!(),
                        name: "boots",
                        file: ::core::file!(),
                        line: ::core::line!(),
                        package: ::core::env!("CARGO_PKG_NAME"),
                        manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
                        options: &[],
                        params: &[
                            ::vmtest::__private::Parameter::of::<
                                Node,
                            >(::vmtest::__private::Param {
                                name: "node",
                                names: &[],
                                settings: &[],
                            }),
                        ],
                    };
                    #[::vmtest::__private::linkme::distributed_slice(
                        ::vmtest::__private::MAKERS
                    )]
                    #[linkme(crate = ::vmtest::__private::linkme)]
                    static MAKER: ::vmtest::__private::Maker = ::vmtest::__private::Maker::Test(
                        &TEST,
                    );
                    &TEST
                },
                ignored: true,
                run: boots,
            };
        };
    "#]]
    .assert_eq(&prettyplease::unparse(&file));
}

#[test]
fn what_only_libtest_does_is_refused() {
    let said = |item: &str| expand("", item).to_string();
    let panics = said("#[should_panic] async fn boots() {}");
    assert!(panics.contains("this is of libtest, which does not run here"), "{panics}");
    let test = said("#[test] async fn boots() {}");
    assert!(test.contains("nothing runs what this makes: remove this attribute"), "{test}");
    assert!(!said("#[ignore] async fn boots() {}").contains("compile_error"));
}
