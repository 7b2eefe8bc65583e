//! Handles where they are not expected: after the end of their cluster, during its teardown, on other threads.

use std::{
    fmt::Debug,
    future::IntoFuture,
    pin::pin,
    sync::{Arc, mpsc},
    task::{Context as TaskContext, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use rstest::rstest;
use vmtest::{
    Kind, State,
    cluster::{ConsoleLines, Process},
    prelude::*,
};
use vmtest_tests::Victim;

/// A call that has not ended by then hangs; all of them together take milliseconds.
const ALL_END_WITHIN: Duration = Duration::from_secs(20);

/// Tests that use their handles badly, each run by a test below in a process of its own.
mod victims {
    use super::*;

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by a_cluster_outlives_the_handles_of_its_body"]
    async fn drops_its_handles(node: Node, cluster: Cluster) -> Result {
        let address = (node.ip(), 22);
        drop((node, cluster));
        for _ in 0..10 {
            std::net::TcpStream::connect(address).context("the machine has gone")?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    #[test]
    #[ignore = "run by calls_end_when_a_teardown_overtakes_them"]
    fn calls_during_the_teardown() {
        let (tell, ended) = mpsc::channel();
        let spec = Cluster::builder()
            .backend("qemu")
            .backend("fake")
            .name("overtaken")
            .node(NodeSpec::new("a"))
            .node(NodeSpec::new("b"));
        let passed = spec.run(async move |cluster: Cluster| {
            let (a, b) = (cluster.node("a")?, cluster.node("b")?);
            let log = a.spawn("sleep 1000").await?;
            tokio::spawn({
                let a = a.clone();
                async move { while a.sh("true").await.is_ok() {} }
            });
            again_and_again(&tell, "sh", {
                let a = a.clone();
                async move || a.sh("true").await.map(drop)
            });
            again_and_again(&tell, "waiting sh", {
                let a = a.clone();
                async move || a.sh("sleep 1000").await.map(drop)
            });
            again_and_again(&tell, "write", {
                let a = a.clone();
                async move || a.write("/f", vec![0; 1 << 20]).await
            });
            again_and_again(&tell, "port", {
                let a = a.clone();
                async move || a.wait_for_port(81).await
            });
            again_and_again(&tell, "power", async move || {
                b.kill().await?;
                b.start().await
            });
            again_and_again(&tell, "add", async move || {
                let late = cluster.add(NodeSpec::new("late")).await?;
                late.kill().await?;
                cluster.remove(&late).await
            });
            again_and_again(&tell, "console", async move || {
                let mut lines = a.console_lines()?;
                loop {
                    lines.next().await?;
                }
            });
            let mut log = log;
            thread::spawn(move || tell.send(("wait", alone(log.wait()).map(drop).expect_err("it is overtaken"))));
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<_, Failure>(())
        });
        passed.expect("nothing of this fails the body");
        for _ in 0..8 {
            let (call, error) = ended.recv_timeout(ALL_END_WITHIN).expect("all calls end");
            assert_eq!(error.kind(), Kind::TornDown, "{call}: {error}");
        }
    }

    type Told = (&'static str, Error);

    /// On a thread without a runtime, until the cluster is gone.
    fn again_and_again(
        tell: &mpsc::Sender<Told>,
        call: &'static str,
        work: impl AsyncFn() -> std::result::Result<(), Error> + Send + 'static,
    ) {
        let tell = tell.clone();
        thread::spawn(move || {
            let began = Instant::now();
            loop {
                match alone(work()) {
                    Err(e) if e.kind() == Kind::TornDown || began.elapsed() > ALL_END_WITHIN => {
                        return tell.send((call, e));
                    }
                    _ => {}
                }
            }
        });
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Awaits this on a thread without a runtime.
fn alone<T>(work: impl IntoFuture<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut work = pin!(work.into_future());
    loop {
        match work.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Everything that a body can hold.
struct Leaked {
    cluster: Cluster,
    node: Node,
    process: Process,
    console: ConsoleLines,
}

/// What a cluster of one machine leaves when it is gone.
fn leaked() -> Leaked {
    let (tell, leaked) = mpsc::channel();
    let passed = Cluster::builder().backend("qemu").backend("fake").name("gone").node(NodeSpec::new("node")).run(
        async move |cluster: Cluster| {
            let node = cluster.node("node")?;
            let (process, console) = (node.spawn("echo once; sleep 1000").await?, node.console_lines()?);
            tell.send(Leaked { cluster, node, process, console }).context("somebody waits for it")
        },
    );
    passed.expect("it passes");
    leaked.recv().expect("the body has sent it")
}

#[track_caller]
fn gone<T: Debug>(call: &str, result: std::result::Result<T, Error>) {
    let error = result.expect_err(call);
    assert_eq!(error.kind(), Kind::TornDown, "{call}: {error}");
    assert!(error.to_string().contains("the cluster is gone: it was torn down"), "{call}: {error}");
}

/// Every call, on whichever executor this is awaited.
async fn every_call_says_that_the_cluster_is_gone(leaked: Leaked) {
    let Leaked { cluster, node, mut process, mut console } = leaked;
    assert_eq!((node.name(), node.state(), cluster.nodes().len()), ("node", State::Off, 1));
    assert!(!node.console().is_empty(), "what was seen of it can still be read");

    gone("sh", node.sh("true").await);
    gone("sh with a limit", node.sh("true").timeout(Duration::from_secs(600)).await);
    gone("spawn", node.spawn("true").await);
    gone("read", node.read("/etc/hosts").await);
    gone("write", node.write("/file", "content").await);
    gone("upload", node.upload(env!("CARGO_MANIFEST_DIR"), "/tree").await);
    gone("download", node.download("/etc", "/nonexistent/etc").await);
    gone("wait_for_port", node.wait_for_port(22).await);
    gone("wait_for_unit", node.wait_for_unit("web").await);
    gone("wait_until", node.wait_until("true").await);
    gone("wait_for_console", node.wait_for_console("never").await);
    gone("connect", node.connect(22).await);
    gone("forward", node.forward(22).await);
    gone("kill", node.kill().await);
    gone("shutdown", node.shutdown().await);
    gone("start", node.start().await);
    gone("reboot", node.reboot().await);
    gone("pause", node.pause().await);
    gone("resume", node.resume().await);
    gone("console_lines", node.console_lines());
    gone("ssh_command", node.ssh_command());
    gone("add", cluster.add(NodeSpec::new("late")).await);
    gone("add_all", cluster.add_all([NodeSpec::new("late")]).await);
    gone("remove", cluster.remove(&node).await);

    let console = loop {
        if let Err(e) = console.next().await {
            break Err::<(), _>(e);
        }
    };
    gone("next", console);
    while process.stdout.next().await.expect("it can be read").is_some() {}
    gone("write to a process", process.write("line\n").await);
    gone("close_stdin", process.close_stdin().await);
    gone("signal", process.signal("TERM").await);
    gone("wait", process.wait().await);
    gone("kill a process", process.kill().await);
}

/// Does this on a thread of its own, which must end in time.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (tell, done) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        tell.send(())
    });
    match done.recv_timeout(ALL_END_WITHIN) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("a call hangs"),
        _ => drop(thread.join().expect("no call panics")),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

#[rstest]
#[case::alone(|leaked| alone(every_call_says_that_the_cluster_is_gone(leaked)))]
#[case::another_runtime(|leaked| runtime().block_on(every_call_says_that_the_cluster_is_gone(leaked)))]
#[case::another_cluster(|leaked| {
    let body = async |_| every_call_says_that_the_cluster_is_gone(leaked).await;
    Cluster::builder().backend("qemu").backend("fake").name("next").run(body).expect("it passes");
})]
fn calls_on_a_cluster_that_is_gone_end_with_an_error(#[case] use_it: fn(Leaked)) {
    let leaked = leaked();
    in_time(move || use_it(leaked));
}

#[test]
fn what_cannot_give_an_error_panics_when_the_cluster_is_gone() {
    let Leaked { cluster, node, .. } = leaked();
    in_time(move || {
        let (inside, outside) = (cluster.clone(), cluster);
        for thread in [
            thread::spawn(move || alone(inside.enter(async || ()))),
            thread::spawn(move || alone(outside.outside(async || ()))),
        ] {
            let payload = thread.join().expect_err("there is nothing to enter");
            let words = payload.downcast_ref::<String>().expect("it has words");
            assert!(words.contains("the cluster is gone: it was torn down"), "{words}");
        }
        let waiting = eventually("it works", Duration::from_secs(600), async || node.sh("true").await);
        let failure = runtime().block_on(waiting).map(drop).expect_err("it never does");
        assert_eq!(failure.cause().map(Error::kind), Some(Kind::TornDown), "{failure}");
    });
}

#[test]
fn a_cluster_outlives_the_handles_of_its_body() {
    Victim::new("drops_its_handles").run().assert_passed().assert_nothing_left();
}

#[test]
fn calls_end_when_a_teardown_overtakes_them() {
    Victim::new("calls_during_the_teardown").run().assert_passed().assert_nothing_left();
}

async fn a_machine_is_used(node: &Node) -> Result {
    assert_eq!(node.sh("hostname").timeout(Duration::from_secs(60)).await?.stdout(), "node");
    let mut process = node.spawn("exec cat").await?;
    process.write("line\n").await?;
    assert_eq!(process.stdout.next().await?.as_deref(), Some("line"));
    process.signal("TERM").await?;
    assert_eq!(process.wait().await?.signal(), Some("TERM"));
    let mut process = node.spawn("sleep 1000").await?;
    process.kill().await?;
    node.write("/file", "content").await?;
    assert_eq!(node.read("/file").await?, b"content");
    node.wait_for_port(22).await?;
    let error = node.connect(81).await.expect_err("nobody listens");
    assert_eq!(error.kind(), Kind::Connection);
    node.console_lines()?.next().await?;
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
async fn a_handle_works_on_any_thread(node: Node) -> Result {
    a_machine_is_used(&node).await?;
    let (plain, other, next) = (node.clone(), node.clone(), node);
    let uses = [
        thread::spawn(move || alone(a_machine_is_used(&plain))),
        thread::spawn(move || runtime().block_on(a_machine_is_used(&other))),
        thread::spawn(move || {
            Cluster::builder()
                .backend("qemu")
                .backend("fake")
                .name("beside")
                .run(async move |_| a_machine_is_used(&next).await)
        }),
    ];
    for used in uses {
        used.join().expect("it does not panic")?;
    }
    Ok(())
}
