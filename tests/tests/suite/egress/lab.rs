//! A host of a test's own, and an internet: two network namespaces with a cable between them.

use std::{
    fs,
    io::ErrorKind,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Command,
    sync::{Once, mpsc},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener as Listener, UdpSocket},
    runtime,
    sync::oneshot,
};
use vmtest_tests::Victim;

/// The host's address, as the internet sees it.
pub(crate) const HOST: &str = "203.0.113.2";
/// The only other one that there is, with a web server and a name server.
pub(crate) const INTERNET: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The only name that there is.
pub(crate) const NAME: &str = "www.example.test";
/// A port on the host's loopback that is for nobody else.
pub(crate) const PRIVATE_PORT: u16 = 8080;

/// The host, seen by a thread on it.
pub(crate) struct Lab {
    /// The network namespace of the internet.
    internet: PathBuf,
    private: TcpListener,
    pub(crate) resolv_conf: tempfile::NamedTempFile,
}

mod victims {
    use vmtest::prelude::*;

    /// Has an image made where it can be had.
    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run before others"]
    async fn prepares(_node: Node) {}
}

static PREPARED: Once = Once::new();

/// Does this on a thread of such a host, and checks that it leaves that as it was.
pub(crate) fn on_a_host<T: Send>(work: impl FnOnce(&Lab) -> T + Send) -> T {
    // The image of the machines is made of packages, which are not in this internet.
    PREPARED.call_once(|| drop(Victim::new("prepares").env("VMTEST_BACKEND", "fake").run().assert_passed()));
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = mpsc::channel();
    let internet = move || {
        tell.send(enter_network()).expect("somebody waits for it");
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
        runtime.block_on(async {
            tokio::select! {
                () = serve_pages() => {}
                () = serve_names() => {}
                _ = stopped => {}
            }
        });
    };
    let host = move || {
        let internet = told.recv().expect("it has a network");
        enter_network();
        connect(&internet);
        let resolv_conf = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(&resolv_conf, format!("nameserver {INTERNET}\n")).expect("it can be written");
        let private = TcpListener::bind((Ipv4Addr::LOCALHOST, PRIVATE_PORT)).expect("nobody else is there");
        let before = everything();
        let lab = Lab { internet, private, resolv_conf };
        let result = work(&lab);
        lab.lead(Way::Pair);
        assert_eq!(everything(), before);
        result
    };
    thread::scope(|scope| {
        scope.spawn(internet);
        let ended = scope.spawn(host).join();
        drop(stop);
        ended.unwrap_or_else(|e| std::panic::resume_unwind(e))
    })
}

/// A way out of a cluster's network.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Pair,
    Pasta,
}

impl Lab {
    /// Has ways out be made like this, for root: a pair only where no filters of others could drop what passes.
    pub(crate) fn lead(&self, way: Way) {
        run(match way {
            Way::Pair => "! nft list table ip others 2>/dev/null || nft delete table ip others",
            Way::Pasta => {
                "nft 'add table ip others; add chain ip others forward { type filter hook forward priority 0; policy drop; }'"
            }
        });
    }

    /// Does this in the internet.
    pub(crate) fn in_the_internet(&self, line: &str) -> String {
        run(&format!("nsenter --net={} sh -c '{line}'", self.internet.display()))
    }

    /// How many packets the internet has received.
    pub(crate) fn packets(&self) -> u64 {
        let devices = self.internet.parent().and_then(|ns| ns.parent()).expect("it is in a process").join("net/dev");
        let table = fs::read_to_string(devices).expect("it can be read");
        let line = table.lines().find_map(|line| line.trim().strip_prefix("inet0:")).expect("it has an interface");
        line.split_whitespace().nth(1).and_then(|packets| packets.parse().ok()).expect("the second is a number")
    }

    /// Checks that nobody has come to the port that is for nobody else.
    pub(crate) fn assert_private(&self) {
        self.private.set_nonblocking(true).expect("a socket takes it");
        let came = self.private.accept().map(|(_, from)| from).map_err(|e| e.kind());
        assert_eq!(came, Err(ErrorKind::WouldBlock));
    }
}

/// Moves the calling thread into a new network; the result is its name. Without IPv6, which talks by itself.
fn enter_network() -> PathBuf {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network can be made");
    if fs::exists("/proc/sys/net/ipv6").is_ok_and(|there| there) {
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").expect("it can be turned off");
    }
    run("cd /proc/sys/net/bridge 2>/dev/null && echo 0 >bridge-nf-call-iptables || true");
    run("ip link set lo up");
    PathBuf::from(format!("/proc/{}/task/{}/ns/net", std::process::id(), nix::unistd::gettid()))
}

fn connect(internet: &std::path::Path) {
    let there = internet.display();
    run(&format!("ip link add wan0 type veth peer name inet0 netns {there}"));
    run(&format!("nsenter --net={there} ip address add {INTERNET}/24 dev inet0"));
    run(&format!("nsenter --net={there} ip link set inet0 up"));
    run(&format!("ip address add {HOST}/24 dev wan0"));
    run("ip link set wan0 up");
    run(&format!("ip route add default via {INTERNET}"));
}

/// Does this in the network of the calling thread; the result is what it prints.
pub(crate) fn run(line: &str) -> String {
    let ended = Command::new("sh").args(["-c", line]).output().expect("there is a shell");
    assert!(ended.status.success(), "`{line}` failed: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

/// What a run could change on the host of the calling thread, as text.
fn everything() -> String {
    run("ip -o addr; ip route show table all; nft list ruleset; cd /proc/sys/net/ipv4
         grep . ip_forward conf/all/accept_redirects conf/*/forwarding; grep -c @vmtest /proc/thread-self/net/unix || true")
}

/// Says hello, and to whom.
async fn serve_pages() {
    let listener = Listener::bind((Ipv4Addr::UNSPECIFIED, 80)).await.expect("nobody else is there");
    loop {
        let Ok((mut stream, from)) = listener.accept().await else { continue };
        let mut request = [0; 1024];
        // A request is one packet; what it asks for is all the same.
        _ = stream.read(&mut request).await;
        let page = format!("HTTP/1.0 200 OK\r\n\r\nhello {}\n", from.ip());
        _ = stream.write_all(page.as_bytes()).await;
    }
}

/// Knows one name and its one IPv4 address.
async fn serve_names() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).await.expect("nobody else is there");
    let wanted: Vec<u8> = NAME.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    let mut query = [0; 512];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut query).await else { continue };
        let question = 12..length.min(12 + wanted.len() + 5);
        let known = query[12..].starts_with(&wanted);
        let is_ipv4 = known && query[12 + wanted.len()..][..3] == [0, 0, 1];
        let code = if known { 0 } else { 3 };
        let mut answer = vec![query[0], query[1], 0x81, 0x80 | code, 0, 1, 0, u8::from(is_ipv4), 0, 0, 0, 0];
        answer.extend(&query[question]);
        if is_ipv4 {
            // The name of the question, type A, class IN, for a minute, four bytes.
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(INTERNET.octets());
        }
        _ = socket.send_to(&answer, from).await;
    }
}
