//! What the attribute expands to, as text.

use std::str::FromStr;

use expect_test::{Expect, expect};
use proc_macro2::TokenStream;

/// What the compiler sees.
fn check(args: &str, item: &str, expected: Expect) {
    let (_, items) = expand(args, item);
    expected.assert_eq(&items);
}

/// The item that is for editors, and all others.
fn expand(args: &str, item: &str) -> (String, String) {
    let tokens = vmtest_macros_core::expand(
        TokenStream::from_str(args).expect("the test is made of tokens"),
        TokenStream::from_str(item).expect("the test is made of tokens"),
    );
    let mut file: syn::File = syn::parse2(tokens).expect("an expansion is a list of items");
    let others = file.items.split_off(1);
    assert!(matches!(&file.items[0], syn::Item::Const(item) if item.ident == "_"), "the first item is for editors");
    (prettyplease::unparse(&file), prettyplease::unparse(&syn::File { items: others, ..file }))
}

#[test]
fn a_test_without_parameters() {
    check(
        "",
        "pub(crate) async fn boots() { assert!(true) }",
        expect![[r##"
            #[::core::prelude::v1::test]
            pub(crate) fn boots() {
                async fn boots() {
                    assert!(true)
                }
                ::vmtest::__private::run(
                    {
                        const TEST: ::vmtest::__private::TestCase = ::vmtest::__private::TestCase {
                            module: ::core::module_path!(),
                            name: "boots",
                            file: ::core::file!(),
                            line: ::core::line!(),
                            package: ::core::env!("CARGO_PKG_NAME"),
                            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
                            options: &[],
                            params: &[],
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
                    async |_cx: &mut ::vmtest::__private::Context| boots().await,
                )
            }
        "##]],
    );
}

#[test]
fn everything_at_once() {
    check(
        r#"image = "micro", memory = "512MiB", packages("etcd-server", "curl"), prepare = "setup.sh", timeout = "3m", nodes = 2, kernel_args = "foo=1", backend = "qemu",
           cpus = 2, fixture("tests/data", at = "/srv", label = "data"), allow("task-panic"),
           volume("data", at = "/data", size = "1GiB"), volume("old", access = "read-only"),
           requires(nested, own_kernel), budget(nodes = 3, memory = "1GiB"),"#,
        r#"
        /// Fails over.
        #[ignore = "slow"]
        #[allow(clippy::too_many_arguments)]
        async fn standby_takes_over(
            #[node(cpus = 2, fixture("d", at = "/srv"))] #[node(memory = "1GiB")] primary: Node,
            mut _db_1: Node,
            [a, mut b_2]: [Node; 2],
            #[cfg(unix)] replicas: [Node; 3],
            #[node] cluster: my::Cluster<'static>,
        ) -> Result {
            primary.kill().await
        }"#,
        expect![[r#"
            /// Fails over.
            #[ignore = "slow"]
            #[allow(clippy::too_many_arguments)]
            #[::core::prelude::v1::test]
            fn standby_takes_over() {
                async fn standby_takes_over(
                    primary: Node,
                    mut _db_1: Node,
                    [a,
                    mut b_2,
                    ]: [Node; 2],
                    #[cfg(unix)]
                    replicas: [Node; 3],
                    cluster: my::Cluster<'static>,
                ) -> Result {
                    primary.kill().await
                }
                ::vmtest::__private::run(
                    {
                        const TEST: ::vmtest::__private::TestCase = ::vmtest::__private::TestCase {
                            module: ::core::module_path!(),
                            name: "standby_takes_over",
                            file: ::core::file!(),
                            line: ::core::line!(),
                            package: ::core::env!("CARGO_PKG_NAME"),
                            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
                            options: &[
                                ::vmtest::__private::Setting::Image("micro"),
                                ::vmtest::__private::Setting::Memory(536870912u64),
                                ::vmtest::__private::Setting::Package("etcd-server"),
                                ::vmtest::__private::Setting::Package("curl"),
                                ::vmtest::__private::Setting::Prepare("setup.sh"),
                                ::vmtest::__private::Setting::Timeout(180000u64),
                                ::vmtest::__private::Setting::Nodes(2u32),
                                ::vmtest::__private::Setting::KernelArgs("foo=1"),
                                ::vmtest::__private::Setting::Backend("qemu"),
                                ::vmtest::__private::Setting::Cpus(2u32),
                                ::vmtest::__private::Setting::Fixture {
                                    dir: "tests/data",
                                    at: ::core::option::Option::Some("/srv"),
                                    label: ::core::option::Option::Some("data"),
                                },
                                ::vmtest::__private::Setting::Allow(
                                    ::vmtest::__private::Allow::TaskPanic,
                                ),
                                ::vmtest::__private::Setting::Volume {
                                    name: "data",
                                    at: ::core::option::Option::Some("/data"),
                                    bytes: ::core::option::Option::Some(1073741824u64),
                                    read_only: false,
                                },
                                ::vmtest::__private::Setting::Volume {
                                    name: "old",
                                    at: ::core::option::Option::None,
                                    bytes: ::core::option::Option::None,
                                    read_only: true,
                                },
                                ::vmtest::__private::Setting::Requires(
                                    ::vmtest::__private::Capability::Nested,
                                ),
                                ::vmtest::__private::Setting::Requires(
                                    ::vmtest::__private::Capability::OwnKernel,
                                ),
                                ::vmtest::__private::Setting::Budget {
                                    nodes: 3u32,
                                    memory: ::core::option::Option::Some(1073741824u64),
                                    cpus: ::core::option::Option::None,
                                    disk: ::core::option::Option::None,
                                },
                            ],
                            params: &[
                                ::vmtest::__private::Parameter::of::<
                                    Node,
                                >(::vmtest::__private::Param {
                                    name: "primary",
                                    names: &[],
                                    settings: &[
                                        ::vmtest::__private::Setting::Cpus(2u32),
                                        ::vmtest::__private::Setting::Fixture {
                                            dir: "d",
                                            at: ::core::option::Option::Some("/srv"),
                                            label: ::core::option::Option::None,
                                        },
                                        ::vmtest::__private::Setting::Memory(1073741824u64),
                                    ],
                                }),
                                ::vmtest::__private::Parameter::of::<
                                    Node,
                                >(::vmtest::__private::Param {
                                    name: "db-1",
                                    names: &[],
                                    settings: &[],
                                }),
                                ::vmtest::__private::Parameter::of::<
                                    [Node; 2],
                                >(::vmtest::__private::Param {
                                    name: "a-b-2",
                                    names: &["a", "b-2"],
                                    settings: &[],
                                }),
                                #[cfg(unix)]
                                ::vmtest::__private::Parameter::of::<
                                    [Node; 3],
                                >(::vmtest::__private::Param {
                                    name: "replicas",
                                    names: &[],
                                    settings: &[],
                                }),
                                ::vmtest::__private::Parameter::of::<
                                    my::Cluster<'static>,
                                >(::vmtest::__private::Param {
                                    name: "cluster",
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
                    async |cx: &mut ::vmtest::__private::Context| {
                        standby_takes_over(
                                cx.arg().await,
                                cx.arg().await,
                                cx.arg().await,
                                #[cfg(unix)]
                                cx.arg().await,
                                cx.arg().await,
                            )
                            .await
                    },
                )
            }
        "#]],
    );
}

/// The names of the tests in the expansion, with their settings.
fn tests(args: &str, item: &str) -> Vec<(String, Vec<String>)> {
    let (_, items) = expand(args, item);
    let mut tests = Vec::new();
    for line in items.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("name: ").filter(|_| line.contains("boots")) {
            tests.push((name.trim_matches(['"', ',']).to_owned(), Vec::new()));
        }
        let settings = line
            .split("::vmtest::__private::Setting::")
            .skip(1)
            .map(|setting| setting.trim_end_matches(['[', ']', ',', ' ']));
        if let Some((_, all)) = tests.last_mut() {
            all.extend(settings.map(|setting| setting.trim_start_matches("options: &[").to_owned()));
        }
    }
    tests
}

#[test]
fn a_list_makes_a_test_of_each_value() {
    check(
        r#"backend = ["cloud-hypervisor", "fake"]"#,
        r#"
        /// Boots.
        #[should_panic]
        pub(super) async fn boots() { assert!(true) }"#,
        expect![[r#"
            /// Boots.
            #[should_panic]
            #[::core::prelude::v1::test]
            pub(super) fn boots_on_cloud_hypervisor() {
                async fn boots() {
                    assert!(true)
                }
                ::vmtest::__private::run(
                    {
                        const TEST: ::vmtest::__private::TestCase = ::vmtest::__private::TestCase {
                            module: ::core::module_path!(),
                            name: "boots_on_cloud_hypervisor",
                            file: ::core::file!(),
                            line: ::core::line!(),
                            package: ::core::env!("CARGO_PKG_NAME"),
                            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
                            options: &[::vmtest::__private::Setting::Backend("cloud-hypervisor")],
                            params: &[],
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
                    async |_cx: &mut ::vmtest::__private::Context| boots().await,
                )
            }
            /// Boots.
            #[should_panic]
            #[::core::prelude::v1::test]
            pub(super) fn boots_on_fake() {
                async fn boots() {
                    assert!(true)
                }
                ::vmtest::__private::run(
                    {
                        const TEST: ::vmtest::__private::TestCase = ::vmtest::__private::TestCase {
                            module: ::core::module_path!(),
                            name: "boots_on_fake",
                            file: ::core::file!(),
                            line: ::core::line!(),
                            package: ::core::env!("CARGO_PKG_NAME"),
                            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
                            options: &[::vmtest::__private::Setting::Backend("fake")],
                            params: &[],
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
                    async |_cx: &mut ::vmtest::__private::Context| boots().await,
                )
            }
        "#]],
    );
}

#[test]
fn lists_make_a_test_of_each_combination() {
    let item = "async fn boots() {}";
    let all = tests(
        r#"kernel = ["k/5.10/bzImage", "k/6.1/bzImage"], cpus = 2, image = ["micro"], backend = ["qemu", "fake"],"#,
        item,
    );
    expect![[r#"
        [
            (
                "boots_on_qemu_with_micro_with_kernel_5_10",
                [
                    "Cpus(2u32)",
                    "Backend(\"qemu\")",
                    "Image(\"micro\")",
                    "Kernel(\"k/5.10/bzImage\")",
                ],
            ),
            (
                "boots_on_qemu_with_micro_with_kernel_6_1",
                [
                    "Cpus(2u32)",
                    "Backend(\"qemu\")",
                    "Image(\"micro\")",
                    "Kernel(\"k/6.1/bzImage\")",
                ],
            ),
            (
                "boots_on_fake_with_micro_with_kernel_5_10",
                [
                    "Cpus(2u32)",
                    "Backend(\"fake\")",
                    "Image(\"micro\")",
                    "Kernel(\"k/5.10/bzImage\")",
                ],
            ),
            (
                "boots_on_fake_with_micro_with_kernel_6_1",
                [
                    "Cpus(2u32)",
                    "Backend(\"fake\")",
                    "Image(\"micro\")",
                    "Kernel(\"k/6.1/bzImage\")",
                ],
            ),
        ]
    "#]]
    .assert_debug_eq(&all);
    // The order of the keys names no test, and a string alone makes no list.
    let names = |args| tests(args, item).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let expected = ["boots_on_qemu_with_micro", "boots_on_fake_with_micro"];
    assert_eq!(names(r#"image = ["micro"], backend = ["qemu", "fake"]"#), expected);
    assert_eq!(names(r#"backend = ["qemu", "fake"], image = ["micro"]"#), expected);
    assert_eq!(names(r#"backend = "qemu, fake", image = "micro""#), ["boots"]);
}

#[test]
fn another_path_of_the_crate_and_an_attribute_that_is_a_test_already() {
    check(
        r#"crate = "crate::machines""#,
        "#[test] async fn boots(node: Node) {}",
        expect![[r##"
            #[test]
            fn boots() {
                async fn boots(node: Node) {}
                crate::machines::__private::run(
                    {
                        const TEST: crate::machines::__private::TestCase = crate::machines::__private::TestCase {
                            module: ::core::module_path!(),
                            name: "boots",
                            file: ::core::file!(),
                            line: ::core::line!(),
                            package: ::core::env!("CARGO_PKG_NAME"),
                            manifest_dir: ::core::env!("CARGO_MANIFEST_DIR"),
                            options: &[],
                            params: &[
                                crate::machines::__private::Parameter::of::<
                                    Node,
                                >(crate::machines::__private::Param {
                                    name: "node",
                                    names: &[],
                                    settings: &[],
                                }),
                            ],
                        };
                        #[crate::machines::__private::linkme::distributed_slice(
                            crate::machines::__private::MAKERS
                        )]
                        #[linkme(crate = crate::machines::__private::linkme)]
                        static MAKER: crate::machines::__private::Maker = crate::machines::__private::Maker::Test(
                            &TEST,
                        );
                        &TEST
                    },
                    async |cx: &mut crate::machines::__private::Context| boots(cx.arg().await).await,
                )
            }
        "##]],
    );
}

#[test]
fn beside_an_error_the_function_remains_and_is_no_test() {
    check(
        r#"memory = "12 bananas""#,
        r#"
        #[test_log::test]
        #[should_panic]
        async fn boots(#[node(cpus = 0)] #[ignore] node: Node, _: Node) -> Result { node.kill().await }"#,
        expect![[r#"
            ::core::compile_error! {
                "`bananas` is not a unit of size: write a size such as \"512MiB\" or \"1GiB\""
            }
            ::core::compile_error! {
                "`cpus` takes a whole number, at least 1: write `cpus = 2`"
            }
            ::core::compile_error! {
                "a node needs a name: write `name: Node`"
            }
            #[should_panic]
            #[allow(dead_code, unused)]
            async fn boots(#[ignore] node: Node, _: Node) -> Result {
                node.kill().await
            }
        "#]],
    );
}

#[test]
fn beside_an_error_the_function_has_no_second_one() {
    check(
        "",
        r#"
        #[node(cpus = 2)]
        const fn boots(a: Node, [b, _]: [Node; 3], [c, a]: [Node; 2], #[cfg(windows)] a: Node) { a.kill().await; }"#,
        expect![[r#"
            ::core::compile_error! {
                "`#[node(..)]` stands before a parameter; what holds for all nodes stands in `#[vm_test(..)]`"
            }
            ::core::compile_error! {
                "a test is asynchronous: write `async fn boots`"
            }
            ::core::compile_error! {
                "a test cannot be `const`"
            }
            ::core::compile_error! {
                "the pattern has 2 names, the array has 3: write `2` here"
            }
            ::core::compile_error! {
                "a node needs a name: write `name: Node`"
            }
            ::core::compile_error! {
                "two nodes cannot share the host name `a`"
            }
            #[allow(dead_code, unused)]
            async fn boots(a: Node, [b, _]: [Node; 2], [c, _]: [Node; 2], #[cfg(windows)] a: Node) {
                a.kill().await;
            }
        "#]],
    );
}

#[test]
fn beside_an_error_nothing_of_rstest_remains() {
    check(
        "",
        r#"
        #[rstest]
        #[case(1)]
        async fn boots(#[case] n: u32, #[ignore] node: Node) {}"#,
        expect![[r#"
            ::core::compile_error! {
                "`#[rstest]` goes first: write it above, and `#[vmtest::test]` last"
            }
            #[allow(dead_code, unused)]
            async fn boots(n: u32, node: Node) {}
        "#]],
    );
}

#[test]
fn an_editor_finds_every_key_beside_those_that_were_written() {
    let (hints, _) = expand(
        r#"memroy = "1GiB", crate = "::vmtest", "#,
        r#"async fn boots(#[node(cp, fixture("d", a), fixture)] node: Node) {}"#,
    );
    expect![[r##"
        #[allow(unexpected_cfgs)]
        const _: () = {
            #[cfg(rust_analyzer)]
            mod test {
                ///image = "micro"
                pub fn image() {}
                ///packages("etcd-server", "curl")
                pub fn packages() {}
                ///prepare = "tests/data/setup.sh"
                pub fn prepare() {}
                ///login = "debian"
                pub fn login() {}
                ///ready = "cloud-init status --wait"
                pub fn ready() {}
                ///firmware = "uefi"
                pub fn firmware() {}
                ///cpus = 2
                pub fn cpus() {}
                ///max_cpus = 4
                pub fn max_cpus() {}
                ///memory = "512MiB"
                pub fn memory() {}
                ///max_memory = "1GiB"
                pub fn max_memory() {}
                ///disk = "8GiB"
                pub fn disk() {}
                ///disk_rate = "10MiB"
                pub fn disk_rate() {}
                ///disk_iops = 500
                pub fn disk_iops() {}
                ///fixture("tests/data", at = "/srv")
                pub fn fixture() {}
                ///volume("pgdata", at = "/srv", size = "4GiB")
                pub fn volume() {}
                ///kernel = "tests/bzImage"
                pub fn kernel() {}
                ///kernel_args = "quota=off"
                pub fn kernel_args() {}
                ///nested = true
                pub fn nested() {}
                ///rate = "10Mbit"
                pub fn rate() {}
                ///network("front")
                pub fn network() {}
                ///nodes = 3
                pub fn nodes() {}
                ///mtu = 1400
                pub fn mtu() {}
                ///egress = true
                pub fn egress() {}
                ///timeout = "3m"
                pub fn timeout() {}
                ///backend = "qemu"
                pub fn backend() {}
                ///requires(nested)
                pub fn requires() {}
                ///budget(nodes = 3)
                pub fn budget() {}
                ///allow("task-panic")
                pub fn allow() {}
                use self::memroy as _;
            }
            #[cfg(rust_analyzer)]
            mod node {
                ///image = "micro"
                pub fn image() {}
                ///packages("etcd-server", "curl")
                pub fn packages() {}
                ///prepare = "tests/data/setup.sh"
                pub fn prepare() {}
                ///login = "debian"
                pub fn login() {}
                ///ready = "cloud-init status --wait"
                pub fn ready() {}
                ///firmware = "uefi"
                pub fn firmware() {}
                ///cpus = 2
                pub fn cpus() {}
                ///max_cpus = 4
                pub fn max_cpus() {}
                ///memory = "512MiB"
                pub fn memory() {}
                ///max_memory = "1GiB"
                pub fn max_memory() {}
                ///disk = "8GiB"
                pub fn disk() {}
                ///disk_rate = "10MiB"
                pub fn disk_rate() {}
                ///disk_iops = 500
                pub fn disk_iops() {}
                ///fixture("tests/data", at = "/srv")
                pub fn fixture() {}
                ///volume("pgdata", at = "/srv", size = "4GiB")
                pub fn volume() {}
                ///kernel = "tests/bzImage"
                pub fn kernel() {}
                ///kernel_args = "quota=off"
                pub fn kernel_args() {}
                ///nested = true
                pub fn nested() {}
                ///rate = "10Mbit"
                pub fn rate() {}
                ///ip = "10.77.0.50"
                pub fn ip() {}
                ///mac = "52:54:00:00:00:50"
                pub fn mac() {}
                ///network("front")
                pub fn network() {}
                use self::{cp as _, fixture as _, fixture as _};
            }
            #[cfg(rust_analyzer)]
            mod fixture {
                ///at = "/srv"
                pub fn at() {}
                ///label = "data"
                pub fn label() {}
                use self::a as _;
            }
        };
    "##]]
    .assert_eq(&hints);
}

#[test]
fn an_editor_finds_the_keys_of_the_test_where_none_is_written() {
    let (hints, _) = expand("", "async fn boots(node: Node) {}");
    assert!(hints.contains("mod test {") && hints.contains("pub fn memory() {}"), "{hints}");
    assert!(!hints.contains("mod node {") && !hints.contains("mod fixture {"), "{hints}");
}
