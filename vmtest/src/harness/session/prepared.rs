//! A run of fake machines before its first effect, for tests that go on by themselves.

use std::{fs, path::Path, sync::Arc};

use tokio::sync::watch;

use super::{Caller, Session, prepare, runtime};
use crate::{
    cluster::{Run, teardown},
    evidence::Recorder,
    harness::traces::Traces,
    host::{Keeper, Panics},
    net::{enter_new_namespace, tables, within},
    spec::{ClusterSpec, NetworkPlace, NodeSpec},
};

/// The size of the disk of the first machine, the least that an ext4 file system with a journal takes.
const DISK: u64 = 16 << 20;

/// Does this with a run of two fake machines, of which nothing is made yet, on a thread in its network, tears it
/// down, and gives what the teardown has found left.
///
/// # Panics
/// With the panic of the work, and when anything of the run is there after the teardown.
pub(super) fn torn_down_after<T: Send>(work: impl AsyncFnOnce(&Arc<Run>) -> T + Send) -> (T, Vec<String>) {
    torn_down_as(|_| {}, work)
}

/// The same for a run of which something else is asked. What is in the network of its caller is in another one that stands
/// for that.
pub(super) fn torn_down_as<T: Send>(
    change: impl FnOnce(&mut ClusterSpec) + Send,
    work: impl AsyncFnOnce(&Arc<Run>) -> T + Send,
) -> (T, Vec<String>) {
    let on_its_thread = || {
        let mut spec = ClusterSpec::new("a run of a test");
        change(&mut spec);
        let stands = (spec.place == NetworkPlace::Host || spec.egress).then(|| enter_new_namespace().unwrap());
        // In a new network it can be on, and then a way out is no pair of interfaces.
        _ = stands.map(|_| fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0"));
        let traces = Traces::of_this_thread();
        let outside = runtime("vmtest-outside", &traces, || {}).unwrap();
        let cancelled = watch::Sender::new(false);
        spec.backends.push("fake".to_owned());
        spec.nodes = ["first", "second"].map(NodeSpec::new).into();
        spec.nodes[0].settings.disk = Some(DISK);
        let recorder = Recorder::begin(&spec, None, None, Path::new(""));
        let caller = Caller {
            cancelled: cancelled.subscribe(),
            outside: outside.handle().clone(),
            panics: Arc::new(Panics::default()),
        };
        let (run, engine, bodies) = prepare(Session::of(spec, recorder), &traces, caller).unwrap();
        let result = engine.block_on(work(&run));
        let left = engine.block_on(teardown(&run));
        assert!(!run.dir.path().exists(), "{} is there: {left:?}", run.dir.path().display());
        assert!(!run.scratch.path().exists(), "{} is there: {left:?}", run.scratch.path().display());
        let children: Vec<_> = run.keepers().flat_map(Keeper::children).collect();
        assert_eq!(children, Vec::<i32>::new(), "the keepers have children");
        assert_eq!(run.journal.outstanding(), [], "the journal names something");
        if let Some(namespace) = stands {
            // Also what remembers that it did not forward.
            assert_eq!(within(namespace, async || tables()).unwrap(), Some(Vec::new()));
        }
        // A link that somebody else has made stays until its network ends, with this thread.
        let again = engine.block_on(teardown(&run));
        assert!(again.iter().all(|what| left.contains(what) && what.starts_with("link")), "left again: {again:?}");
        for runtime in [bodies, engine, outside] {
            runtime.shutdown_background();
        }
        (result, left)
    };
    std::thread::scope(|scope| scope.spawn(on_its_thread).join()).unwrap_or_else(|e| std::panic::resume_unwind(e))
}
