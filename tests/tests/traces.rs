//! Where the traces of a body go: where those of the thread go that asked for the cluster.

use std::{
    fmt::{self, Debug},
    sync::{Arc, Mutex},
};

use rstest::rstest;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    info, info_span,
    span::{Attributes, Id, Record},
};
use tracing_test::traced_test;
use vmtest::prelude::*;
use vmtest_tests::Victim;

#[traced_test]
#[vm_test(backend = "qemu, fake")]
async fn traces_are_seen_by_an_attribute_above(_cluster: Cluster) {
    info!("a trace of the body");
    assert!(logs_contain("a trace of the body"));
}

#[vm_test(backend = "qemu, fake")]
#[traced_test]
async fn traces_are_seen_by_an_attribute_below(_cluster: Cluster) {
    info!("a trace of the body");
    assert!(logs_contain("a trace of the body"));
}

#[vm_test(backend = "qemu, fake")]
#[traced_test]
async fn traces_of_tasks_are_seen(cluster: Cluster) -> Result {
    tokio::spawn(async { info!("of a task") }).await?;
    tokio::task::spawn_blocking(|| info!("of a task that blocks")).await?;
    cluster.outside(async || info!("of the other network")).await;
    for trace in ["of a task", "of a task that blocks", "of the other network"] {
        assert!(logs_contain(trace), "{trace}");
    }
    Ok(())
}

#[vm_test(backend = "qemu, fake")]
#[traced_test]
async fn traces_of_another_test_are_not_mine(_cluster: Cluster) {
    info!("mine alone");
    assert!(logs_contain("mine alone"));
    assert!(!logs_contain("a trace of the body"));
}

#[test]
fn the_subscriber_of_a_thread_hears_its_cluster() -> Result {
    let heard = Heard::default();
    let cluster = Cluster::builder().backend("qemu").backend("fake").name("heard");
    tracing::subscriber::with_default(heard.clone(), || {
        let _span = info_span!("asks").entered();
        cluster.run(async |_| {
            info!("of the body");
            tokio::spawn(async { info!("of a task") }).await
        })
    })?;
    let heard = heard.0.lock().expect("nobody panicked").clone();
    for said in ["enters asks", "of the body", "of a task"] {
        assert!(heard.iter().any(|line| line == said), "`{said}` is not among {heard:?}");
    }
    Ok(())
}

/// Tests that set a subscriber for their whole process, each run by a test below.
mod victims {
    use test_log::test as logged_test;
    use tracing::{Instrument, info};
    use vmtest::prelude::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by spans_of_a_body_are_in_its_timeline"]
    async fn spans(_cluster: Cluster) -> Result {
        let work = async {
            tracing::debug_span!("too detailed").in_scope(|| {});
            tokio::task::spawn_blocking(|| tracing::info_span!("blocks").in_scope(|| {})).await
        };
        work.instrument(tracing::info_span!("work", n = 7, on = "db")).await?;
        let open = tracing::info_span!("is open");
        tracing::subscriber::set_global_default(super::OF_THE_PROCESS.get_or_init(super::Heard::default).clone())?;
        info!("of the process");
        tokio::spawn(async { info!("of a task") }).await?;
        drop(open);
        println!(
            "{}",
            if super::Heard::of_the_process(&["of the process", "of a task"]) { "all heard" } else { "not heard" }
        );
        Ok(())
    }

    #[test_log::test]
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by logs_are_printed"]
    async fn logged_above(_cluster: Cluster) {
        info!("logged above");
    }

    #[test_log::test(vm_test(timeout = "1m", backend = "qemu, fake"))]
    #[ignore = "run by logs_are_printed"]
    async fn logged_around(_cluster: Cluster) {
        info!("logged around");
    }

    #[vm_test(backend = "qemu, fake")]
    #[test_log::test]
    #[ignore = "run by logs_are_printed"]
    async fn logged_below(_cluster: Cluster) {
        info!("logged below");
    }

    #[logged_test]
    #[test_log(default_log_filter = "traces=trace")]
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by logs_are_printed"]
    async fn logged_more(_cluster: Cluster) {
        tracing::trace!("logged more");
    }

    #[vm_test(backend = "qemu, fake")]
    #[test_log::test]
    #[test_log(default_log_filter = "traces=trace")]
    #[ignore = "run by logs_are_printed"]
    async fn logged_more_below(_cluster: Cluster) {
        tracing::trace!("logged more below");
    }
}

#[rstest]
#[case::above("logged_above")]
#[case::around("logged_around")]
#[case::below("logged_below")]
#[case::more("logged_more")]
#[case::more_below("logged_more_below")]
fn logs_are_printed(#[case] victim: &str) {
    let ended = Victim::new(victim).env("RUST_LOG", "").env("NO_COLOR", "1").run().assert_passed();
    let said = format!("traces::victims: {}", victim.replace('_', " "));
    assert!(ended.text().lines().any(|line| line.ends_with(&said)), "no line ends in `{said}`:\n{}", ended.text());
}

#[test]
fn spans_of_a_body_are_in_its_timeline() {
    let artifacts = tempfile::TempDir::new().expect("a temporary directory");
    let ended = Victim::new("spans").env("VMTEST_ARTIFACTS", artifacts.path()).run().assert_passed();
    assert!(ended.text().contains("all heard"), "{}", ended.text());
    let all = vmtest::evidence::Kept::all(artifacts.path());
    let of = |kind: &str| all[0].events.iter().filter(|event| event["event"] == kind).cloned().collect::<Vec<_>>();
    let began: Vec<_> = of("began").into_iter().filter(|event| event["kind"] == "span").collect();
    let names: Vec<_> = began.iter().map(|event| event["what"].as_str().expect("it has a name")).collect();
    assert_eq!(names, ["work n=7 on=\"db\"", "blocks", "is open"]);
    let ended: Vec<_> = of("ended").into_iter().map(|event| event["id"].clone()).collect();
    assert_eq!(ended, [&began[1], &began[0], &began[2]].map(|event| event["id"].clone()));
}

/// A subscriber that keeps what it hears.
#[derive(Debug, Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

static OF_THE_PROCESS: std::sync::OnceLock<Heard> = std::sync::OnceLock::new();

impl Heard {
    /// Whether that of the process has heard all of this.
    fn of_the_process(said: &[&str]) -> bool {
        let heard =
            OF_THE_PROCESS.get().map(|heard| heard.0.lock().expect("nobody panicked").clone()).unwrap_or_default();
        said.iter().all(|said| heard.iter().any(|line| line == said))
    }

    fn push(&self, line: String) {
        self.0.lock().expect("nobody panicked").push(line);
    }
}

impl Subscriber for Heard {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with(module_path!()) && metadata.is_event() || metadata.name() == "asks"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert_eq!(span.metadata().name(), "asks");
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Message(String);
        impl Visit for Message {
            fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
                self.0 = fmt::format(format_args!("{value:?}"));
            }
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.push(message.0);
    }

    fn enter(&self, _: &Id) {
        self.push("enters asks".to_owned());
    }

    fn exit(&self, _: &Id) {}
}
