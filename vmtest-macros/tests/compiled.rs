//! The expansion, compiled and run against a harness that only looks at it.

#![deny(warnings, unused_qualifications, clippy::all)]
#![expect(unsafe_code, reason = "the linker's list is of this crate here, and never of one that uses `vmtest`")]

use std::sync::atomic::{AtomicUsize, Ordering};

use vmtest_macros::{test as other_path, vm_test};

/// Stands in for `vmtest`: what the expansion names, and no more.
mod harness {
    pub(crate) mod __private {
        use std::fmt::Debug;
        use std::pin::pin;
        use std::task::{Poll, Waker};

        #[derive(Debug, PartialEq)]
        #[expect(dead_code, reason = "a test that needs them all would be the snapshot again")]
        pub(crate) enum Setting {
            Image(&'static str),
            Cpus(u32),
            Memory(u64),
            Disk(u64),
            Fixture { dir: &'static str, at: Option<&'static str>, label: Option<&'static str> },
            Rate(u64),
            Ip([u8; 4]),
            Mac([u8; 6]),
            Timeout(u64),
            KernelArgs(&'static str),
            Backend(&'static str),
            Requires(Capability),
            Nodes(u32),
            Mtu(u32),
            Egress(bool),
            Budget { nodes: u32, memory: Option<u64>, cpus: Option<u32>, disk: Option<u64> },
            Allow(Allow),
        }

        #[derive(Debug, PartialEq)]
        pub(crate) enum Capability {
            Nested,
            Vsock,
        }

        #[derive(Debug, PartialEq)]
        pub(crate) enum Allow {
            TaskPanic,
        }

        #[derive(Debug)]
        pub(crate) struct Param {
            pub(crate) name: &'static str,
            pub(crate) names: &'static [&'static str],
            pub(crate) settings: &'static [Setting],
        }

        #[derive(Debug)]
        pub(crate) struct Parameter {
            pub(crate) param: Param,
            pub(crate) declare: fn() -> &'static str,
        }

        impl Parameter {
            pub(crate) const fn of<T: super::Extract>(param: Param) -> Self {
                Self { param, declare: T::declare }
            }
        }

        #[derive(Debug)]
        pub(crate) struct TestCase {
            pub(crate) module: &'static str,
            pub(crate) name: &'static str,
            pub(crate) file: &'static str,
            pub(crate) line: u32,
            pub(crate) package: &'static str,
            pub(crate) manifest_dir: &'static str,
            pub(crate) options: &'static [Setting],
            pub(crate) params: &'static [Parameter],
        }

        pub(crate) use ::linkme;

        pub(crate) enum Maker {
            Test(&'static TestCase),
        }

        #[linkme::distributed_slice]
        pub(crate) static MAKERS: [Maker];

        pub(crate) struct Context(pub(crate) &'static TestCase, usize);

        impl Context {
            pub(crate) async fn arg<T: super::Extract>(&mut self) -> T {
                self.1 += 1;
                T::extract(self.0, self.1 - 1)
            }
        }

        pub(crate) trait Verdict {
            fn check(self);
        }

        impl Verdict for () {
            fn check(self) {}
        }

        impl<E: Debug> Verdict for Result<(), E> {
            fn check(self) {
                self.expect("the body succeeds");
            }
        }

        pub(crate) fn run<R: Verdict>(test: &'static TestCase, body: impl AsyncFnOnce(&mut Context) -> R) {
            let mut context = Context(test, 0);
            let future = pin!(body(&mut context));
            let mut task = std::task::Context::from_waker(Waker::noop());
            match future.poll(&mut task) {
                Poll::Ready(verdict) => verdict.check(),
                Poll::Pending => unreachable!("nothing here waits"),
            }
        }
    }

    pub(crate) trait Extract: Sized {
        fn declare() -> &'static str;
        fn extract(test: &'static __private::TestCase, index: usize) -> Self;
    }
}

use harness::__private::{Allow, Capability, Setting, TestCase};
use harness::Extract;

/// Shadowed by nothing that the macro emits.
const TEST: &str = "the user's own";

#[derive(Debug)]
struct Node {
    test: &'static TestCase,
    index: usize,
}

impl Extract for Node {
    fn declare() -> &'static str {
        "node"
    }

    fn extract(test: &'static TestCase, index: usize) -> Self {
        Self { test, index }
    }
}

impl<T: Extract, const N: usize> Extract for [T; N] {
    fn declare() -> &'static str {
        "group"
    }

    fn extract(test: &'static TestCase, index: usize) -> Self {
        std::array::from_fn(|_| T::extract(test, index))
    }
}

#[vm_test(crate = "crate::harness", memory = "1MiB", allow("task-panic"), requires(nested, vsock))]
async fn knows_where_it_is(node: Node) {
    assert_eq!(TEST, "the user's own");
    let test = node.test;
    assert_eq!((test.module, test.name), (module_path!(), "knows_where_it_is"));
    assert_eq!((test.file, test.line), (file!(), line!() - 4));
    assert_eq!((test.package, test.manifest_dir), ("vmtest-macros", env!("CARGO_MANIFEST_DIR")));
    let [nested, vsock] = [Capability::Nested, Capability::Vsock].map(Setting::Requires);
    assert_eq!(test.options, [Setting::Memory(1 << 20), Setting::Allow(Allow::TaskPanic), nested, vsock]);
}

#[vm_test(crate = "crate::harness")]
async fn hands_over_every_parameter(
    #[node(cpus = 2, fixture("d", at = "/srv"))] primary: Node,
    [a, mut b]: [Node; 2],
    #[cfg(any())] absent: Node,
    last: Node,
) -> Result<(), String> {
    let params = primary.test.params;
    let names: Vec<_> = params.iter().map(|p| (p.param.name, (p.declare)())).collect();
    assert_eq!(names, [("primary", "node"), ("a-b", "group"), ("last", "node")]);
    assert_eq!(params[1].param.names, ["a", "b"]);
    let fixture = Setting::Fixture { dir: "d", at: Some("/srv"), label: None };
    assert_eq!(params[0].param.settings, [Setting::Cpus(2), fixture]);
    b.index += 1;
    assert_eq!([primary.index, a.index, b.index, last.index], [0, 1, 2, 2]);
    Ok(())
}

/// That of `qemu` and of `fake`, each with a static of its own.
#[vm_test(crate = "crate::harness", backend = ["qemu", "fake"], cpus = 3)]
#[should_panic(expected = "on purpose")]
async fn chooses(node: Node) {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    assert_eq!(RUNS.fetch_add(1, Ordering::Relaxed), 0);
    let backend = match node.test.name {
        "chooses_on_qemu" => "qemu",
        "chooses_on_fake" => "fake",
        other => unreachable!("{other}"),
    };
    assert_eq!(node.test.options, [Setting::Cpus(3), Setting::Backend(backend)]);
    panic!("on purpose");
}

#[vm_test(crate = "crate::harness")]
#[should_panic(expected = "on purpose")]
async fn panics_as_it_should() {
    panic!("on purpose");
}

#[vm_test(crate = "crate::harness")]
#[should_panic(expected = "the body succeeds: \"no\"")]
async fn fails_as_it_should() -> Result<(), &'static str> {
    Err("no")
}

#[vm_test(crate = "crate::harness")]
#[expect(unused_variables)]
#[allow(unused_mut)]
async fn keeps_lint_levels(mut node: Node) {
    let unused = 1;
}

macro_rules! generated {
    ($name:ident, $memory:literal, $ty:ty, $body:block) => {
        #[vm_test(crate = "crate::harness", memory = $memory)]
        async fn $name(_node: $ty) $body
    };
}

generated!(comes_from_a_macro, "1GiB", [Node; 2], {
    assert_eq!(TEST, "the user's own");
});

static RUNS: AtomicUsize = AtomicUsize::new(0);

#[other_path(crate = "crate::harness")]
#[test]
async fn is_one_test_even_if_it_says_so_twice() {
    assert_eq!(RUNS.fetch_add(1, Ordering::Relaxed), 0);
}

mod elsewhere {
    #[super::vm_test(crate = "crate::harness")]
    #[ignore = "to be seen in the listing"]
    pub(super) async fn is_ignored() {
        unreachable!()
    }
}

#[test]
fn keeps_the_visibility() {
    let _: fn() = elsewhere::is_ignored;
}

#[test]
fn every_test_is_known_before_main() {
    let known = harness::__private::MAKERS.iter().map(|harness::__private::Maker::Test(test)| test.name);
    let mut known: Vec<_> = known.collect();
    known.sort_unstable();
    let expected = [
        "chooses_on_fake",
        "chooses_on_qemu",
        "comes_from_a_macro",
        "fails_as_it_should",
        "hands_over_every_parameter",
        "is_ignored",
        "is_one_test_even_if_it_says_so_twice",
        "keeps_lint_levels",
        "knows_where_it_is",
        "panics_as_it_should",
    ];
    assert_eq!(known, expected);
}
