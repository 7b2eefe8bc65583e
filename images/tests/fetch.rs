//! Files by address and digest, from servers on loopback that do all that servers do.

mod support;

use std::{
    cell::RefCell,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use support::{Answer, Server};
use vmtest_images::{Algorithm, Cache, Digest, Error, Fetch, Progress, Result};

/// More than the pieces in which it is read, and no multiple of them.
const LENGTH: usize = 1_000_003;

fn content() -> Vec<u8> {
    (0..LENGTH).map(|place| u8::try_from(place % 251).expect("it is less than 251")).collect()
}

/// The digest of the content, from the same bytes by another way.
fn digest() -> String {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), content()).expect("it can be written");
    Digest::of_file(file.path()).expect("it can be read").to_string()
}

struct Fetched {
    dir: tempfile::TempDir,
    server: Server,
}

impl Fetched {
    fn by(answers: &[Answer]) -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary directory"), server: Server::start(content(), answers) }
    }

    fn cache(&self) -> Cache {
        Cache::open(self.dir.path()).expect("a cache")
    }

    fn fetch(&self) -> Fetch {
        // A server on loopback answers within a millisecond, also on a busy host within a second.
        let fetch = Fetch::new(self.server.url(), &digest()).expect("a digest");
        fetch.patience(Duration::from_secs(1), Duration::from_millis(1))
    }

    fn run(&self) -> Result<PathBuf> {
        self.fetch().run(&self.cache(), &())
    }

    /// The names of what is in the cache, but for locks.
    fn left(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("downloads")) else { return Vec::new() };
        let names = entries.map(|entry| entry.expect("it can be read").file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.ends_with(".lock")).collect()
    }

    /// Checks that it is there, the right bytes, and nothing beside it.
    fn assert_whole(&self, path: &Path) {
        assert!(fs::read(path).expect("it is there") == content(), "the bytes are others");
        assert_eq!(self.left(), [format!("{}-the-file", digest())]);
    }
}

#[test]
fn a_file_is_fetched_once() {
    let fetched = Fetched::by(&[Answer::Whole]);
    assert_eq!(fetched.fetch().find(&fetched.cache()), None);
    let path = fetched.run().expect("it comes");
    fetched.assert_whole(&path);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o444);
    assert_eq!(fetched.run().expect("it is there"), path);
    assert_eq!(fetched.fetch().find(&fetched.cache()), Some(path));
    assert_eq!(fetched.server.asked(), [None]);
}

#[test]
fn a_program_can_be_run() {
    let fetched = Fetched::by(&[Answer::Moved, Answer::Whole]);
    let path = fetched.fetch().executable().run(&fetched.cache(), &()).expect("it comes");
    fetched.assert_whole(&path);
    assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o755);
}

#[test]
fn what_was_cut_off_goes_on_where_it_ended() {
    let fetched = Fetched::by(&[Answer::Truncated(300_000), Answer::Truncated(300_000), Answer::Whole]);
    fetched.assert_whole(&fetched.run().expect("it comes"));
    assert_eq!(fetched.server.asked(), [None, Some(300_000), Some(600_000)]);
}

#[test]
fn a_silent_server_is_given_up_and_asked_again() {
    let fetched = Fetched::by(&[Answer::Stalled(70_000), Answer::Whole]);
    fetched.assert_whole(&fetched.run().expect("it comes"));
    assert_eq!(fetched.server.asked(), [None, Some(70_000)]);
}

#[test]
fn a_server_without_ranges_sends_it_again() {
    let fetched = Fetched::by(&[Answer::Truncated(300_000), Answer::NoRanges]);
    fetched.assert_whole(&fetched.run().expect("it comes"));
    assert_eq!(fetched.server.asked(), [None, Some(300_000)]);
}

#[test]
fn what_may_pass_is_tried_again() {
    let fetched =
        Fetched::by(&[Answer::Status(503), Answer::Gone, Answer::Status(429), Answer::Status(500), Answer::Whole]);
    fetched.assert_whole(&fetched.run().expect("it comes"));
}

#[test]
fn five_failures_in_a_row_are_enough() {
    let fetched = Fetched::by(&[Answer::Status(500)]);
    let error = fetched.run().expect_err("it does not come").to_string();
    let said = format!("cannot fetch {}, after 5 tries: the server answers 500", fetched.server.url());
    assert!(error.starts_with(&said), "{error}");
    assert_eq!(fetched.server.asked().len(), 5);
}

#[test]
fn what_is_not_there_is_not_asked_for_again() {
    let fetched = Fetched::by(&[Answer::Status(404)]);
    let error = fetched.run().expect_err("it does not come").to_string();
    assert!(error.contains(", after 1 try: the server answers 404"), "{error}");
    assert_eq!(fetched.server.asked().len(), 1);
}

#[test]
fn of_a_wrong_file_nothing_stays() {
    let fetched = Fetched::by(&[Answer::Wrong]);
    let error = fetched.run().expect_err("it is another");
    assert!(matches!(&error, Error::Corrupt { expected, .. } if *expected == digest()), "{error}");
    assert!(error.to_string().contains("nothing of it was kept"), "{error}");
    assert_eq!(fetched.left(), Vec::<String>::new());
    assert_eq!(fetched.server.asked(), [None]);
}

#[test]
fn a_damaged_beginning_is_fetched_again() {
    let fetched = Fetched::by(&[Answer::Whole]);
    let part = fetched.dir.path().join(format!("downloads/{}.part", digest()));
    for (damaged, asked) in
        [(vec![0; 500], Some(500)), (vec![0; LENGTH], Some(LENGTH)), (vec![0; 2 * LENGTH], Some(2 * LENGTH))]
    {
        fs::create_dir_all(part.parent().expect("it has one")).expect("it can be made");
        fs::write(&part, damaged).expect("it can be written");
        let path = fetched.run().expect("it comes");
        fetched.assert_whole(&path);
        assert!(fetched.server.asked().contains(&asked));
        fs::remove_file(path).expect("it can be removed");
    }
}

#[test]
fn a_file_may_be_known_by_its_sha_512() {
    let fetched = Fetched::by(&[Answer::Truncated(300_000), Answer::Whole]);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), content()).expect("it can be written");
    let digest = Digest::of_file_by(Algorithm::Sha512, file.path()).expect("it can be read");
    let patient = |digest: &str| {
        let fetch = Fetch::new(fetched.server.url(), digest).expect("a digest");
        fetch.patience(Duration::from_secs(1), Duration::from_millis(1)).run(&fetched.cache(), &())
    };
    let path = patient(&digest.tagged()).expect("it goes on where it was");
    assert!(fs::read(path).expect("it is there") == content(), "the bytes are others");
    assert_eq!(fetched.left(), [format!("{digest}-the-file")]);
    assert_eq!(fetched.server.asked(), [None, Some(300_000)]);
    let error = patient(&format!("sha512:{}", "0".repeat(128))).expect_err("it is another").to_string();
    assert!(error.contains(&format!("its SHA-512 is {digest}, and 000000")), "{error}");
    assert_eq!(fetched.left().len(), 1, "nothing of it was kept");
}

#[test]
fn without_a_digest_nothing_is_fetched() {
    let error = Fetch::new("http://127.0.0.1:1/x", "").expect_err("it has none").to_string();
    assert!(error.starts_with("`` is no SHA-256: give its 64 hexadecimal digits"), "{error}");
}

#[test]
fn a_full_place_is_said() {
    // A file that is as large as the process may make one takes no more.
    let fetched = Fetched::by(&[Answer::Whole]);
    let script = "ulimit -f 100; trap '' XFSZ; exec \"$0\" \"$@\"";
    let ended = other(&fetched, &["sh", "-c", script]).wait_with_output().expect("it ends");
    assert!(!ended.status.success());
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("cannot write ") && said.contains(".part"), "{said}");
}

#[test]
fn progress_is_told() {
    struct Steps(RefCell<Vec<u64>>);
    impl Progress for Steps {
        fn step(&self, percent: u64, what: &str) {
            assert!(what.starts_with("fetching http://127.0.0.1:"), "{what}");
            self.0.borrow_mut().push(percent);
        }
    }
    let fetched = Fetched::by(&[Answer::Truncated(500_000), Answer::Whole]);
    let steps = Steps(RefCell::default());
    fetched.fetch().run(&fetched.cache(), &steps).expect("it comes");
    let steps = steps.0.into_inner();
    assert!(steps.is_sorted() && steps.first() == Some(&0) && steps.last() == Some(&100), "{steps:?}");
}

/// Run by other tests, in processes of its own.
#[test]
#[ignore = "fetches what its environment says"]
fn victim() {
    let var = |name| std::env::var(name).expect("whoever runs it says so");
    let fetch = Fetch::new(var("URL"), &var("DIGEST")).expect("a digest");
    let fetched = fetch.run(&Cache::open(var("CACHE")).expect("a cache"), &());
    let path = fetched.unwrap_or_else(|e| panic!("{e}"));
    println!("{}", path.display());
}

fn other(fetched: &Fetched, wrapper: &[&str]) -> Child {
    let binary = std::env::current_exe().expect("a running test knows its binary");
    let words: Vec<_> = wrapper.iter().map(PathBuf::from).chain([binary]).collect();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(["victim", "--exact", "--ignored", "--nocapture"]);
    command.env("URL", fetched.server.url()).env("DIGEST", digest()).env("CACHE", fetched.dir.path());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().expect("it runs")
}

#[test]
fn of_two_processes_one_fetches() {
    let fetched = Fetched::by(&[Answer::Whole]);
    let both = [other(&fetched, &[]), other(&fetched, &[])];
    for one in both {
        let ended = one.wait_with_output().expect("it ends");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    }
    fetched.assert_whole(&fetched.fetch().find(&fetched.cache()).expect("it is there"));
    assert_eq!(fetched.server.asked(), [None]);
}

#[test]
fn after_a_kill_the_next_goes_on() {
    let fetched = Fetched::by(&[Answer::Stalled(400_000), Answer::Whole]);
    let mut killed = other(&fetched, &[]);
    let part = fetched.dir.path().join(format!("downloads/{}.part", digest()));
    while fs::metadata(&part).map_or(0, |meta| meta.len()) < 400_000 {
        assert!(killed.try_wait().expect("a child can be waited for").is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(1));
    }
    killed.kill().expect("it can be killed");
    killed.wait().expect("a child can be waited for");
    fetched.assert_whole(&fetched.run().expect("it comes"));
    assert_eq!(fetched.server.asked(), [None, Some(400_000)]);
}
