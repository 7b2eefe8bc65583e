//! Every wrong use and the text that answers it.

use std::str::FromStr;

use proc_macro2::{TokenStream, TokenTree};

/// The messages of the `compile_error!`s in the expansion, in order.
fn problems(args: &str, item: &str) -> Vec<String> {
    let expansion = vmtest_macros_core::expand(
        TokenStream::from_str(args).expect("the test is made of tokens"),
        TokenStream::from_str(item).expect("the test is made of tokens"),
    );
    let mut messages = Vec::new();
    let mut named = false;
    for token in expansion {
        match token {
            TokenTree::Ident(ident) => named = ident == "compile_error",
            TokenTree::Group(group) if named => {
                messages.push(syn::parse2::<syn::LitStr>(group.stream()).expect("a message is a string").value());
                named = false;
            }
            _ => {}
        }
    }
    messages
}

#[track_caller]
fn check(args: &str, item: &str, expected: &[&str]) {
    assert_eq!(problems(args, item), expected);
}

#[track_caller]
fn on_test(args: &str, expected: &str) {
    check(args, "async fn boots() {}", &[expected]);
}

#[track_caller]
fn on_node(args: &str, expected: &str) {
    check("", &format!("async fn boots(#[node({args})] node: Node) {{}}"), &[expected]);
}

#[track_caller]
fn on_function(item: &str, expected: &str) {
    check("", item, &[expected]);
}

#[test]
fn unknown_key() {
    on_test(
        "memroy = \"1GiB\"",
        "unknown key `memroy`, did you mean `memory`?\nthe test takes `image`, `packages`, `prepare`, `login`, `ready`, `firmware`, `cpus`, `max_cpus`, `memory`, `max_memory`, `disk`, `disk_rate`, `disk_iops`, `fixture`, `volume`, \
         `kernel`, `kernel_args`, `nested`, `rate`, `network`, `nodes`, `mtu`, `egress`, `timeout`, `backend`, `requires`, `budget`, `allow`, `crate`",
    );
    on_node(
        "colour = 3",
        "unknown key `colour`\na node takes `image`, `packages`, `prepare`, `login`, `ready`, `firmware`, `cpus`, `max_cpus`, `memory`, `max_memory`, `disk`, `disk_rate`, `disk_iops`, `fixture`, `volume`, `kernel`, `kernel_args`, `nested`, `rate`, `ip`, `mac`, \
         `network`",
    );
    on_test(
        "fixture(\"d\", lable = \"x\")",
        "unknown key `lable`, did you mean `label`?\na fixture takes `at`, `label`",
    );
}

#[test]
fn duplicate_key() {
    on_test("cpus = 1, cpus = 2", "duplicate key `cpus`: the test takes it once");
    on_test("crate = \"::a\", crate = \"::b\"", "duplicate key `crate`: the test takes it once");
    check(
        "",
        "async fn boots(#[node(cpus = 1)] #[node(cpus = 1)] node: Node) {}",
        &["duplicate key `cpus`: a node takes it once"],
    );
    on_test("fixture(\"d\", at = \"/a\", at = \"/b\")", "duplicate key `at`: a fixture takes it once");
}

#[test]
fn fixtures_can_be_repeated() {
    check("fixture(\"a\"), fixture(\"b\", at = \"/b\"),", "async fn boots() {}", &[]);
}

#[test]
fn key_in_the_wrong_place() {
    for (key, written) in [
        ("timeout", "timeout = \"3m\""),
        ("nodes", "nodes = 3"),
        ("mtu", "mtu = 1400"),
        ("egress", "egress = true"),
        ("backend", "backend = \"qemu\""),
        ("requires", "requires(nested)"),
        ("budget", "budget(nodes = 3)"),
        ("allow", "allow(\"task-panic\")"),
        ("crate", "crate = \"::vmtest\""),
    ] {
        on_node(written, &format!("`{key}` belongs on the test, not on a node: write `#[vm_test({written})]`"));
    }
    for (key, written) in [("ip", "ip = \"10.77.0.50\""), ("mac", "mac = \"52:54:00:00:00:50\"")] {
        let said = format!("write `#[node({written})]` before its parameter");
        on_test(written, &format!("`{key}` belongs on a node, not on the test: {said}"));
    }
}

#[test]
fn wrong_type_of_value() {
    on_test(
        "image = 12",
        "`image` takes a string, or the path of a function that makes one: write `image = \"micro\"`",
    );
    on_test(
        "image = debian-12",
        "`image` takes a string, or the path of a function that makes one: write `image = \"micro\"`",
    );
    on_test(
        "image(\"micro\")",
        "`image` takes a string, or the path of a function that makes one: write `image = \"micro\"`",
    );
    on_test(
        "packages = \"curl\"",
        "`packages` takes strings in parentheses: write `packages(\"etcd-server\", \"curl\")`",
    );
    on_node("packages(curl)", "`packages` takes strings in parentheses: write `packages(\"etcd-server\", \"curl\")`");
    on_node("packages()", "`packages` needs a value: write `packages(\"etcd-server\", \"curl\")`");
    on_test("prepare = 1", "`prepare` takes a string: write `prepare = \"tests/data/setup.sh\"`");
    for value in ["\"2\"", "2.5", "-1", "0", "99999999999", "two"] {
        on_test(&format!("cpus = {value}"), "`cpus` takes a whole number, at least 1: write `cpus = 2`");
        on_test(&format!("nodes = {value}"), "`nodes` takes a whole number, at least 1: write `nodes = 3`");
    }
    on_test("memory = 512", "`memory` takes a size, a string with a unit: write `memory = \"512MiB\"`");
    on_test("timeout = 90", "`timeout` takes a duration, a string with a unit: write `timeout = \"3m\"`");
    on_test(
        "fixture = \"d\"",
        "`fixture` takes a directory in parentheses: write `fixture(\"tests/data\", at = \"/srv\")`",
    );
    on_test("rate = 10", "`rate` takes a rate, a string with a unit: write `rate = \"10Mbit\"`");
    on_test("mtu = \"1400\"", "`mtu` takes a whole number, at least 1: write `mtu = 1400`");
    for value in ["1", "\"true\"", "yes"] {
        on_test(&format!("egress = {value}"), "`egress` takes `true` or `false`: write `egress = true`");
    }
    on_node("ip = 10", "`ip` takes an IPv4 address in a string: write `ip = \"10.77.0.50\"`");
    on_node("mac = 52", "`mac` takes a hardware address in a string: write `mac = \"52:54:00:00:00:50\"`");
    on_test("crate = vmtest", "`crate` takes a path in a string: write `crate = \"::vmtest\"`");
    on_test("crate = \"a b\"", "`a b` is not the path of a crate");
}

#[test]
fn wrong_list() {
    on_test("backend = []", "`backend` needs a value: write `backend = [\"qemu\", \"..\"]`");
    for list in ["[qemu]", "[3]", "[\"qemu\" \"fake\"]", "[[\"qemu\"]]", "[cloud-hypervisor]"] {
        on_test(
            &format!("backend = {list}"),
            "a list for `backend` holds strings: write `backend = [\"qemu\", \"..\"]`",
        );
    }
    on_test("backend = [\"qemu\"] + 1", "`backend` takes a string: write `backend = \"qemu\"`");
    on_test("image = [\"micro\",, \"big\"]", "nothing stands before this comma");
    on_test("image = [\"micro\", \"big\", \"micro\"]", "`micro` is in the list already: write it once");
    on_test("image = [\"-\"]", "`-` gives its test no name: it has no letter and no digit");
    on_test(
        "image = [\"debian-12\", \"debian_12\"]",
        "the tests of `debian-12` and `debian_12` would have one name: rename one of the two",
    );
    on_test(
        "backend = [\"qemu, fake\"]",
        "in a list each stands alone, `[\"qemu\", \"fake\"]`; one test on the first of them that runs here is `backend = \
         \"qemu, fake\"` without brackets",
    );
    on_test("backend = [\"qemu\"], backend = [\"fake\"]", "duplicate key `backend`: the test takes it once");
    on_test("memory = [\"1GiB\"]", "`memory` takes a size, a string with a unit: write `memory = \"512MiB\"`");
    on_test("kernel_args = [\"a\"]", "`kernel_args` takes a string: write `kernel_args = \"quota=off\"`");
    on_node(
        "kernel = [\"a\", \"b\"]",
        "`kernel` with a list makes more than one test, and belongs on the test: write `#[vm_test(kernel = \
         [\"tests/bzImage\", \"..\"])]`",
    );
    on_node(
        "backend = [\"a\"]",
        "`backend` belongs on the test, not on a node: write `#[vm_test(backend = \"qemu\")]`",
    );
}

#[test]
fn wrong_unit() {
    on_test("memory = \"12 bananas\"", "`bananas` is not a unit of size: write a size such as \"512MiB\" or \"1GiB\"");
    on_test("memory = \"512\"", "`512` has no unit: write a size such as \"512MiB\" or \"1GiB\"");
    on_node("memory = \"0MiB\"", "a size is more than zero: write a size such as \"512MiB\" or \"1GiB\"");
    on_test(
        "timeout = \"30\"",
        "`30` is not a duration (time unit needed, for example 30sec or 30ms): write a duration such as \"90s\" or \"3m\"",
    );
}

#[test]
fn key_without_a_value() {
    on_test("memory", "`memory` needs a value: write `memory = \"512MiB\"`");
    on_test("egress", "`egress` needs a value: write `egress = true`");
    on_test("memory =", "`memory` needs a value: write `memory = \"512MiB\"`");
    for fixture in ["fixture", "fixture()", "fixture ="] {
        on_test(fixture, "`fixture` needs a directory: write `fixture(\"tests/data\", at = \"/srv\")`");
    }
}

#[test]
fn wrong_fixture() {
    on_test(
        "fixture(at = \"/srv\")",
        "the first value of `fixture` is its directory: write `fixture(\"tests/data\", at = \"/srv\")`",
    );
    on_test("fixture(\"d\", at)", "`at` takes a string: write `at = \"..\"`");
    on_test("fixture(\"d\", label = 3)", "`label` takes a string: write `label = \"..\"`");
    on_test(
        "fixture(\"d\", at = \"srv\")",
        "a fixture is mounted at an absolute path of the guest: write `at = \"/srv\"`",
    );
}

#[test]
fn wrong_volume() {
    let example = "`volume(\"pgdata\", at = \"/srv\", size = \"4GiB\")`";
    for volume in ["volume", "volume()", "volume ="] {
        on_test(volume, &format!("`volume` needs a name: write {example}"));
    }
    on_test("volume = \"v\"", &format!("`volume` takes a name in parentheses: write {example}"));
    on_test("volume(at = \"/srv\")", &format!("the first value of `volume` is its name: write {example}"));
    on_test(
        "volume(\"v\", acess = \"x\")",
        "unknown key `acess`, did you mean `access`?\na volume takes `at`, `size`, `access`",
    );
    on_test("volume(\"v\", at = \"/a\", at = \"/b\")", "duplicate key `at`: a volume takes it once");
    on_test(
        "volume(\"v\", at = \"srv\")",
        "a volume is mounted at an absolute path of the guest: write `at = \"/srv\"`",
    );
    on_test(
        "volume(\"v\", access = \"readonly\")",
        "`access` does not take `readonly`, did you mean `read-only`?\n`access` takes `read-write`, `read-only`",
    );
    on_test(
        "volume(\"v\", size = \"1GiB\", access = \"read-only\")",
        "a volume that is only read has the size that it was written with: leave out `size` or `access`",
    );
    for (name, why) in [
        ("", "it is empty"),
        ("../v", "it may hold letters, digits, `-` and `_`"),
        ("-v", "it begins with a letter or a digit"),
    ] {
        on_test(&format!("volume(\"{name}\")"), &format!("`{name}` is no name of a volume: {why}"));
    }
    check("volume(\"a\"), volume(\"b\", access = \"read-only\"),", "async fn boots() {}", &[]);
}

#[test]
fn wrong_place_of_networks() {
    on_test("network = 3", "`network` takes a name in parentheses: write `network(\"front\")`");
    on_test(
        "network = \"hots\"",
        "`network =` does not take `hots`, did you mean `host`?\n`network =` takes `own`, `host`; a network of this name is \
         `network(\"hots\")`",
    );
    on_test("network = \"own\", network = \"host\"", "networks are in one place: leave one `network = \"..\"` out");
    on_node("network = \"host\"", "`network` takes a name in parentheses: write `network(\"front\")`");
    check("network = \"host\", network(\"front\")", "async fn boots(node: Node) {}", &[]);
}

#[test]
fn wrong_allow() {
    for allow in ["allow", "allow()", "allow ="] {
        on_test(allow, "`allow` needs a value: write `allow(\"task-panic\")`");
    }
    for allow in ["allow = \"task-panic\"", "allow(3)", "allow(task_panic)", "allow(\"task-panic\" = true)"] {
        on_test(allow, "`allow` takes strings in parentheses: write `allow(\"task-panic\")`");
    }
    on_test("allow(\"task-panic\"), allow(\"task-panic\")", "duplicate key `allow`: the test takes it once");
    check(
        "allow(\"task-panics\", \"task-panic\", \"everything\")",
        "async fn boots() {}",
        &[
            "`allow` does not take `task-panics`, did you mean `task-panic`?\n`allow` takes `task-panic`, `oops`, `bug`, `lockup`, \
             `hung-task`, `oom`, `filesystem-error`, `segfault`",
            "`allow` does not take `everything`\n`allow` takes `task-panic`, `oops`, `bug`, `lockup`, `hung-task`, `oom`, \
             `filesystem-error`, `segfault`",
        ],
    );
}

#[test]
fn wrong_requirement() {
    for requires in ["requires", "requires()", "requires ="] {
        on_test(requires, "`requires` needs a name: write `requires(nested)`");
    }
    for requires in ["requires = nested", "requires(\"nested\")", "requires(3)", "requires(own-kernel)"] {
        on_test(requires, "`requires` takes names in parentheses: write `requires(nested)`");
    }
    on_test("requires(nested), requires(vsock)", "duplicate key `requires`: the test takes it once");
    check(
        "requires(nestd, own_kernel, networks, nested, nested)",
        "async fn boots() {}",
        &[
            "`requires` does not take `nestd`, did you mean `nested`?\n`requires` takes `own_kernel`, `faults`, `nested`, `vsock`, `snapshot`, `resize`, `disk_rate`, `hotplug`, `panic_device`, `screenshot`, `firmware`",
            "`requires` does not take `networks`\n`requires` takes `own_kernel`, `faults`, `nested`, `vsock`, `snapshot`, `resize`, `disk_rate`, `hotplug`, `panic_device`, `screenshot`, `firmware`",
            "`nested` is required already: write it once",
        ],
    );
}

#[test]
fn wrong_budget() {
    for budget in ["budget", "budget()", "budget ="] {
        on_test(budget, "`budget` needs a number of machines or the limit of a phase: write `budget(nodes = 3)`");
    }
    on_test("budget = 3", "`budget` takes machines or phases in parentheses: write `budget(nodes = 3)`");
    on_test("budget(cpus = 2)", "`budget` needs the number of its machines: write `budget(nodes = 3)`");
    on_test("budget(nodes = 0)", "`nodes` takes a whole number, at least 1: write `nodes = 3`");
    on_test(
        "budget(boot = \"20s\", memory = \"1GiB\")",
        "`budget` needs the number of its machines: write `budget(nodes = 3)`",
    );
    on_test("budget(boot = 20)", "`boot` takes a duration, a string with a unit: write `boot = \"20s\"`");
    on_test("budget(boot)", "`boot` needs a value: write `boot = \"20s\"`");
    on_test("budget(boot = \"1s\", boot = \"2s\")", "duplicate key `boot`: a budget takes it once");
    on_test(
        "budget(bot = \"1s\")",
        "unknown key `bot`, did you mean `boot`?\na budget takes `nodes`, `memory`, `cpus`, `disk`, `plan`, `lease`, `network`, `boot`, `body`, `teardown`",
    );
    on_test("budget(nodes = 1, nodes = 2)", "duplicate key `nodes`: a budget takes it once");
    check(
        "budget(nodes = 1, cpu = 2, memory = 3, disk = \"1\", image = \"micro\")",
        "async fn boots() {}",
        &[
            "unknown key `cpu`, did you mean `cpus`?\na budget takes `nodes`, `memory`, `cpus`, `disk`, `plan`, `lease`, `network`, `boot`, `body`, `teardown`",
            "`memory` takes a size, a string with a unit: write `memory = \"512MiB\"`",
            "`1` has no unit: write a size such as \"512MiB\" or \"1GiB\"",
            "unknown key `image`\na budget takes `nodes`, `memory`, `cpus`, `disk`, `plan`, `lease`, `network`, `boot`, `body`, `teardown`",
        ],
    );
}

#[test]
fn wrong_grammar() {
    on_test("\"micro\"", "expected a key, as in `memory = \"512MiB\"`");
    on_test("image: \"micro\"", "expected `=` or `(` after `image`");
    on_test("fixture(\"d\") cpus = 2", "expected a comma after `fixture(..)`");
    on_test("cpus = 2,, nodes = 1", "nothing stands before this comma");
    on_function(
        "async fn boots(#[node = 3] node: Node) {}",
        "settings stand in parentheses: write `#[node(cpus = 2)]`",
    );
}

#[test]
fn wrong_function() {
    on_function("fn boots() {}", "a test is asynchronous: write `async fn boots`");
    on_function("async fn boots<T>(node: T) {}", "a test cannot be generic: nobody is there to choose the types");
    on_function("async fn boots() where u8: Copy {}", "a test cannot have a `where` clause");
    on_function("async fn boots(&self) {}", "a test is a free function, it has no `self`");
    on_function("async unsafe fn boots() {}", "a test cannot be `unsafe`: nobody is there to uphold its contract");
    on_function("async extern \"C\" fn boots() {}", "a test cannot be `extern`");
    on_function(
        "async fn boots(node: impl Extract) {}",
        "a parameter needs a type of its own, `impl Trait` is none: write `name: Node`",
    );
    on_function("struct Boots;", "this attribute goes on an `async fn`");
    on_function("async fn boots();", "a test needs a body");
}

#[test]
fn plain_function_that_is_a_test() {
    let message = "a test is asynchronous: write `async fn boots`, and remove the other test attribute";
    on_function("#[::core::prelude::v1::test] fn boots() {}", message);
}

#[test]
fn attribute_in_the_wrong_place() {
    on_function(
        "#[node(cpus = 2)] async fn boots(node: Node) {}",
        "`#[node(..)]` stands before a parameter; what holds for all nodes stands in `#[vm_test(..)]`",
    );
    for attribute in ["rstest", "rstest::rstest"] {
        on_function(
            &format!("#[{attribute}] #[case(1)] async fn boots(#[case] n: u32) {{}}"),
            "`#[rstest]` goes first: write it above, and `#[vmtest::test]` last",
        );
    }
    for attribute in ["vm_test", "vm_test(cpus = 2)", "vmtest::test", "::vmtest::vm_test"] {
        on_function(
            &format!("#[{attribute}] async fn boots() {{}}"),
            "this makes a test of a test: one `#[vm_test]` is enough",
        );
    }
    for attribute in ["tokio::test", "tokio::test(flavor = \"multi_thread\")", "::async_std::test"] {
        on_function(
            &format!("#[{attribute}] async fn boots() {{}}"),
            "the body has a runtime already: remove this attribute",
        );
    }
}

#[test]
fn other_attributes_may_stand_below() {
    for attribute in ["test", "::core::prelude::v1::test", "test_log::test", "traced_test", "ignore", "cfg(unix)"] {
        check("", &format!("#[{attribute}] async fn boots() {{}}"), &[]);
    }
}

#[test]
fn parameter_without_a_name() {
    let message = "a node needs a name: write `name: Node`";
    on_function("async fn boots(_: Node) {}", message);
    on_function("async fn boots(__: Node) {}", message);
    on_function("async fn boots([a, _]: [Node; 2]) {}", message);

    let message = "a pattern gives a node no name: write `name: Node`, or `[a, b]: [Node; 2]` for a group";
    for parameter in [
        "(a, b): (Node, Node)",
        "Postgres { node }: Postgres",
        "ref a: Node",
        "[a, ..]: [Node; 3]",
        "[a, b @ ..]: [Node; 3]",
        "[[a, b]]: [[Node; 2]; 1]",
    ] {
        on_function(&format!("async fn boots({parameter}) {{}}"), message);
    }
}

#[test]
fn invalid_name() {
    on_function(
        "async fn boots(Primary: Node) {}",
        "`Primary` is no host name: they are in lower case; write `primary`",
    );
    on_function(
        "async fn boots([a, größe]: [Node; 2]) {}",
        "`größe` is no host name: only a to z, 0 to 9 and underscores can be part of one",
    );
}

#[test]
fn two_equal_names() {
    on_function("async fn boots(a: Node, _a: Node) {}", "two nodes cannot share the host name `a`");
    on_function("async fn boots(a_1: Node, [b, __a_1]: [Node; 2]) {}", "two nodes cannot share the host name `a-1`");
    check("", "async fn boots(#[cfg(unix)] a: Node, #[cfg(windows)] a: Node) {}", &[]);
}

#[test]
fn length_of_a_group() {
    on_function("async fn boots([a, b]: [Node; 3]) {}", "the pattern has 2 names, the array has 3: write `2` here");
    on_function("async fn boots([]: [Node; 0]) {}", "a group needs at least one node: write `[a, b]: [Node; 2]`");
    check("", "async fn boots([a, b]: [Node; PAIR], [c]: Trio) {}", &[]);
}

#[test]
fn nodes_may_stand_beside_parameters() {
    check("nodes = 2", "async fn boots(primary: Node) {}", &[]);
}

#[test]
fn all_problems_are_reported_at_once() {
    check(
        "memory, , cpus = 0, weather = 1",
        "fn boots<T>(_: Node, #[node(timeout = \"3m\")] A: Node) {}",
        &[
            "nothing stands before this comma",
            "`memory` needs a value: write `memory = \"512MiB\"`",
            "`cpus` takes a whole number, at least 1: write `cpus = 2`",
            "unknown key `weather`\nthe test takes `image`, `packages`, `prepare`, `login`, `ready`, `firmware`, `cpus`, `max_cpus`, `memory`, `max_memory`, `disk`, `disk_rate`, `disk_iops`, `fixture`, `volume`, `kernel`, `kernel_args`, `nested`, `rate`, \
             `network`, `nodes`, `mtu`, `egress`, `timeout`, `backend`, `requires`, `budget`, `allow`, `crate`",
            "a test is asynchronous: write `async fn boots`",
            "a test cannot be generic: nobody is there to choose the types",
            "a node needs a name: write `name: Node`",
            "`timeout` belongs on the test, not on a node: write `#[vm_test(timeout = \"3m\")]`",
            "`A` is no host name: they are in lower case; write `a`",
        ],
    );
}
