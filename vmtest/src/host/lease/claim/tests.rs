use std::{
    future::{Future, pending},
    pin::Pin,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::host::Asked;

/// Only so that nothing hangs: everything here happens within milliseconds.
const AT_MOST: Duration = Duration::from_secs(60);

struct Shared {
    _root: tempfile::TempDir,
    ledger: Ledger,
    budget: HostBudget,
}

type Waits = mpsc::UnboundedReceiver<Waiting>;
type Taken = JoinHandle<Result<Claim, Error>>;

fn shared(memory: u64) -> Shared {
    let root = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(root.path()).unwrap();
    let asked = Asked { memory: Some(memory), cpus: Some(2), disk: Some(1) };
    let budget = HostBudget::measure(&ledger, asked, root.path().to_owned()).unwrap();
    Shared { _root: root, ledger, budget }
}

fn memory(memory: u64) -> Resources {
    Resources { memory, ..Resources::NONE }
}

impl Shared {
    /// A test of this name that wants so much, of which it keeps some for later.
    fn asks(&self, name: &str, wants: u64, spare: u64) -> (Taken, Waits) {
        self.asks_until(name, wants, spare, pending())
    }

    /// The same, given up when this resolves.
    fn asks_until(
        &self,
        name: &str,
        wants: u64,
        spare: u64,
        give_up: impl Future<Output = ()> + Send + 'static,
    ) -> (Taken, Waits) {
        let (tell, waits) = mpsc::unbounded_channel();
        let (ledger, budget) = (self.ledger.clone(), self.budget.clone());
        let request =
            Request { run: name.to_owned(), test: name.to_owned(), wants: memory(wants), spare: memory(spare) };
        let take = async move {
            Claim::take(&ledger, &budget, request, |waiting| drop(tell.send(waiting.clone())), give_up).await
        };
        (tokio::spawn(take), waits)
    }

    async fn takes(&self, name: &str, wants: u64) -> Arc<Claim> {
        let (taken, _) = self.asks(name, wants, 0);
        Arc::new(within(taken).await.unwrap().unwrap())
    }

    fn files(&self) -> (usize, usize) {
        let count = |dir: PathBuf| fs::read_dir(dir).unwrap().count();
        (count(self.ledger.claims()), count(self.ledger.queue()))
    }
}

/// Begins to take more, and tells for whom it waits.
fn extends(claim: &Arc<Claim>, more: u64) -> (JoinHandle<Result<(), Error>>, Waits) {
    let (tell, waits) = mpsc::unbounded_channel();
    let claim = claim.clone();
    let extend = async move { claim.extend(memory(more), |waiting| drop(tell.send(waiting.clone()))).await };
    (tokio::spawn(extend), waits)
}

fn within<T>(work: impl Future<Output = T> + Send + 'static) -> Pin<Box<dyn Future<Output = T> + Send>> {
    Box::pin(async { timeout(AT_MOST, work).await.unwrap() })
}

fn names(waiting: &Waiting) -> Vec<&str> {
    waiting.holders.iter().map(|holder| holder.test.as_str()).collect()
}

#[tokio::test]
async fn what_is_free_is_taken_at_once_and_given_back() {
    let host = shared(10);
    let (taken, mut waits) = host.asks("a", 10, 0);
    let claim = within(taken).await.unwrap().unwrap();
    assert!(waits.recv().await.is_none(), "it did not wait");
    assert_eq!(host.files(), (1, 0));
    claim.release();
    assert_eq!(host.files(), (0, 0));
    claim.release();
    assert_eq!(claim.extend(memory(1), |_| ()).await.unwrap_err().kind(), Kind::TornDown);
}

#[tokio::test]
async fn whoever_came_first_is_served_first_even_if_the_next_one_needs_less() {
    let host = shared(10);
    let holder = host.takes("holder", 4).await;
    let (large, mut of_large) = host.asks("large", 8, 0);
    let waiting = of_large.recv().await.unwrap();
    assert_eq!((names(&waiting), waiting.ahead), (vec!["holder"], 0));
    let said = waiting.to_string();
    let pid = std::process::id();
    let words = format!("waits for 8 B of memory, of 10 B of memory in all: `holder` (pid {pid}) holds 4 B");
    assert!(said.starts_with(&words), "{said}");
    let (small, mut of_small) = host.asks("small", 3, 0);
    assert_eq!(of_small.recv().await.unwrap().ahead, 1);
    assert_eq!(host.files(), (1, 2));

    holder.release();
    let large = within(large).await.unwrap().unwrap();
    assert_eq!(names(&of_small.recv().await.unwrap()), ["large"], "it is the first now, and looks again");
    assert_eq!(host.files(), (1, 1));
    drop(large);
    within(small).await.unwrap().unwrap();
    assert_eq!(host.files(), (0, 0), "the claim was dropped with the result");
}

#[tokio::test]
async fn whoever_gives_up_leaves_the_queue() {
    let host = shared(10);
    let holder = host.takes("holder", 10).await;
    let mut queue = Vec::new();
    for name in ["first", "second", "third"] {
        let (give_up, given_up) = oneshot::channel();
        // Whoever is not told to goes on.
        let given_up = async {
            if given_up.await.is_err() {
                pending().await
            }
        };
        let (taken, mut waits) = host.asks_until(name, 10, 0, given_up);
        waits.recv().await.unwrap();
        queue.push((taken, give_up));
    }
    assert_eq!(host.files(), (1, 3));
    let (third, _) = queue.pop().unwrap();
    for (taken, give_up) in queue {
        give_up.send(()).unwrap();
        assert_eq!(within(taken).await.unwrap().unwrap_err().kind(), Kind::Cancelled);
    }
    assert_eq!(host.files(), (1, 1));
    holder.release();
    within(third).await.unwrap().unwrap();
    assert_eq!(host.files(), (0, 0));
}

#[tokio::test]
async fn what_is_kept_for_machines_that_join_is_theirs() {
    let host = shared(10);
    let (taken, _) = host.asks("keeps", 7, 4);
    let keeps = Arc::new(within(taken).await.unwrap().unwrap());
    let other = host.takes("other", 3).await;
    for _ in 0..2 {
        within(extends(&keeps, 2).0).await.unwrap().unwrap();
    }
    let (more, mut waits) = extends(&keeps, 1);
    assert_eq!(names(&waits.recv().await.unwrap()), ["other"], "nothing is left of what it has kept");
    keeps.give_back(memory(2));
    other.release();
    within(more).await.unwrap().unwrap();
    within(extends(&keeps, 1).0).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_cluster_that_is_alone_takes_all_the_rest_and_no_more() {
    let host = shared(10);
    let claim = host.takes("alone", 4).await;
    within(extends(&claim, 6).0).await.unwrap().unwrap();
    let error = within(extends(&claim, 1).0).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    let said = "they need 1 B of memory beside the 10 B of memory of this cluster";
    assert!(error.to_string().contains(said), "{error}");
}

#[tokio::test]
async fn whoever_holds_something_goes_before_the_queue() {
    let host = shared(10);
    let (a, b) = (host.takes("a", 5).await, host.takes("b", 5).await);
    let (queued, mut of_queued) = host.asks("queued", 2, 0);
    of_queued.recv().await.unwrap();
    let (more, mut waits) = extends(&a, 5);
    waits.recv().await.unwrap();
    b.release();
    within(more).await.unwrap().unwrap();
    a.release();
    within(queued).await.unwrap().unwrap();
}

#[tokio::test]
async fn of_two_that_wait_for_each_other_the_last_gives_up_and_the_first_goes_on() {
    let host = shared(10);
    let (first, last) = (host.takes("first", 5).await, host.takes("last", 5).await);
    let (more, mut waits) = extends(&first, 2);
    waits.recv().await.unwrap();
    let error = within(extends(&last, 2).0).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Missing);
    let text = error.to_string();
    for said in ["`first` (pid ", "and waits for more as well", "budget(nodes = ..)"] {
        assert!(text.contains(said), "{text}");
    }
    assert!(!more.is_finished());
    drop(last);
    within(more).await.unwrap().unwrap();
}

/// The circle closes by the end of one who did not wait, so both find out at once.
#[tokio::test]
async fn only_one_gives_up_when_the_last_one_who_ran_ends() {
    let host = shared(10);
    let (first, last, third) =
        (host.takes("first", 4).await, host.takes("last", 4).await, host.takes("third", 2).await);
    let (of_first, mut waits) = extends(&first, 6);
    waits.recv().await.unwrap();
    let (of_last, mut waits) = extends(&last, 6);
    waits.recv().await.unwrap();
    third.release();
    within(of_last).await.unwrap().unwrap_err();
    assert!(!of_first.is_finished());
    last.release();
    within(of_first).await.unwrap().unwrap();
}

#[tokio::test]
async fn claims_of_a_newer_version_are_not_misread() {
    let host = shared(10);
    let claim = host.takes("newer", 1).await;
    fs::write(host.ledger.claims().join("newer"), r#"{"version":99,"test":"t","pid":1,"memory":1,"cpus":0,"disk":0}"#)
        .unwrap();
    let error = within(host.asks("other", 1, 0).0).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("claims/newer is of another version of vmtest"), "{error}");
    drop(claim);
}

#[test]
fn what_nobody_holds_is_swept_away() {
    let root = tempfile::tempdir().unwrap();
    Ledger::sweep(root.path()).unwrap();
    let ledger = Ledger::open(root.path()).unwrap();
    fs::write(ledger.claims().join("dead"), "{").unwrap();
    fs::write(ledger.queue().join("7"), "").unwrap();
    let ticket = ledger.lock().unwrap().new_ticket().unwrap();
    assert_eq!(ticket.number, 0, "nobody is before it");
    Ledger::sweep(root.path()).unwrap();
    assert_eq!(fs::read_dir(ledger.claims()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(ledger.queue()).unwrap().count(), 1);
}
