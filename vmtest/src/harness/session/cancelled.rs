//! Work that is dropped at each of its await points, by the count of polls that it was given, leaves nothing.

use std::{
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    prepared::{torn_down_after, torn_down_as},
    provisioned,
};
use crate::{
    Error,
    cluster::{Cluster, Run, teardown},
    spec::{ClusterSpec, NetworkPlace, NodeSpec},
};

/// Polls a future this often; `None` when it has not ended by then, and is dropped.
async fn polled<T>(work: impl Future<Output = T>, times: usize) -> Option<T> {
    let (mut work, mut polls) = (pin!(work), 0);
    let poll = |cx: &mut Context<'_>| {
        polls += 1;
        if polls > times {
            return Poll::Ready(None);
        }
        match work.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polls == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    };
    std::future::poll_fn(poll).await
}

/// Tries each number of polls, from the first on, until the work has ended before; gives how many there were.
fn at_each_await_point(mut ended: impl FnMut(usize) -> bool) -> usize {
    (0..).find(|&polls| ended(polls)).expect("work has an end")
}

type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>>;

/// Stops everything of a run at each of its polls while it does this, after machines are up or before.
fn stopped_at_each_await_point(
    change: impl Fn(&mut ClusterSpec) + Sync,
    machines: bool,
    work: impl Fn(&Arc<Run>) -> Work<'_> + Sync,
) -> usize {
    at_each_await_point(|polls| {
        let (ended, left) = torn_down_as(&change, async |run| {
            if machines {
                provisioned(run).await.unwrap();
            }
            run.tasks.brake.stop_after(polls);
            tokio::select! {
                biased;
                () = run.tasks.brake.stopped() => false,
                ended = work(run) => {
                    ended.unwrap();
                    true
                }
            }
        });
        assert_eq!(left, Vec::<String>::new(), "after {polls} polls");
        ended
    })
}

#[test]
fn provisioning_leaves_nothing() {
    let polls = stopped_at_each_await_point(|_| {}, false, |run| Box::pin(provisioned(run)));
    assert!(polls > 20, "two machines are not made in {polls} polls");
}

#[test]
fn provisioning_in_the_network_of_the_caller_leaves_nothing() {
    let polls =
        stopped_at_each_await_point(|spec| spec.place = NetworkPlace::Host, false, |run| Box::pin(provisioned(run)));
    assert!(polls > 20, "two machines are not made in {polls} polls");
}

#[test]
fn provisioning_with_a_way_out_leaves_nothing() {
    let polls = stopped_at_each_await_point(|spec| spec.egress = true, false, |run| Box::pin(provisioned(run)));
    assert!(polls > 20, "two machines are not made in {polls} polls");
}

#[test]
fn adding_a_machine_leaves_nothing() {
    let polls = stopped_at_each_await_point(
        |_| {},
        true,
        |run| Box::pin(async { Cluster::new(run.clone()).add(NodeSpec::new("late")).await.map(drop) }),
    );
    assert!(polls > 10, "a machine is not added in {polls} polls");
}

#[test]
fn starting_a_machine_again_leaves_nothing() {
    let polls = stopped_at_each_await_point(
        |_| {},
        true,
        |run| {
            Box::pin(async {
                let node = Cluster::new(run.clone()).node("first")?;
                node.kill().await?;
                node.start().await
            })
        },
    );
    assert!(polls > 10, "a machine is not started in {polls} polls");
}

/// Whoever asked is gone, and what was asked for goes on until the teardown.
#[test]
fn a_caller_that_goes_leaves_nothing() {
    at_each_await_point(|polls| {
        let (ended, left) = torn_down_after(async |run| {
            let cluster = Cluster::new(run.clone());
            let work = async {
                provisioned(run).await?;
                cluster.add(NodeSpec::new("late")).await?;
                let node = cluster.node("first")?;
                node.kill().await?;
                node.start().await
            };
            polled(work, polls).await.map(Result::unwrap).is_some()
        });
        assert_eq!(left, Vec::<String>::new(), "after {polls} polls");
        ended
    });
}

/// The teardown that comes after it does the rest.
#[test]
fn a_teardown_that_is_dropped_leaves_nothing() {
    let polls = at_each_await_point(|polls| {
        let (ended, left) = torn_down_after(async |run| {
            provisioned(run).await.unwrap();
            polled(teardown(run), polls).await.is_some()
        });
        assert_eq!(left, Vec::<String>::new(), "after {polls} polls");
        ended
    });
    // How many more, depends on how much has been done whenever it looks.
    assert!(polls > 1, "a teardown waits for processes and the kernel, which takes more than {polls} polls");
}
