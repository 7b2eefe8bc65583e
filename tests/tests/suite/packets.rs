//! What passes the ports of machines, as it is kept of a test that fails.

use std::{fs, io::Cursor, net::Ipv4Addr, process::Command};

use pcap_parser::{Block, PcapBlockOwned, PcapError, PcapNGReader, traits::PcapReaderIterator};
use tempfile::TempDir;
use vmtest::evidence::Kept;
use vmtest_tests::Victim;

/// Tests that are run by the tests below, each in a process of its own.
mod victims {
    use vmtest::prelude::*;

    #[vm_test(backend = "fake")]
    #[ignore = "run by many"]
    async fn fails(web: Node, db: Node) -> Result {
        web.sh("dd if=/dev/zero bs=1M count=1 2>/dev/null").await?;
        db.sh("echo the last words; false").await?;
        Ok(())
    }

    #[vm_test(backend = "fake")]
    #[ignore = "run by nothing_is_kept_of_what_passes_and_where_it_was_not_asked_for"]
    async fn passes(_web: Node) {}
}

/// The addresses of sender and receiver of each IPv4 packet, with the name of its port, and the size of the file.
fn packets(file: &[u8]) -> Vec<(String, Ipv4Addr, Ipv4Addr)> {
    let mut reader = PcapNGReader::new(1 << 17, Cursor::new(file)).expect("it is in that form");
    let (mut ports, mut found) = (Vec::new(), Vec::new());
    loop {
        match reader.next() {
            Ok((length, block)) => {
                match block {
                    PcapBlockOwned::NG(Block::InterfaceDescription(port)) => {
                        let name = port.options.iter().find(|option| option.code.0 == 2).expect("it has a name");
                        let name = &name.value[..usize::from(name.len)];
                        ports.push(String::from_utf8(name.to_vec()).expect("it is text"));
                    }
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let address = |at: usize| -> Option<Ipv4Addr> {
                            let bytes: [u8; 4] = packet.data.get(at..at + 4)?.try_into().ok()?;
                            Some(bytes.into())
                        };
                        let port = ports[packet.if_id as usize].clone();
                        if packet.data.get(12..14) == Some(&[8, 0])
                            && let (Some(from), Some(to)) = (address(26), address(30))
                        {
                            found.push((port, from, to));
                        }
                    }
                    _ => {}
                }
                reader.consume(length);
            }
            Err(PcapError::Eof) => return found,
            Err(PcapError::Incomplete(_)) => reader.refill().expect("it is in memory"),
            Err(e) => panic!("{e:?}"),
        }
    }
}

#[test]
fn the_last_packets_of_each_machine_are_kept() {
    let artifacts = TempDir::new().expect("a temporary directory");
    let victim = Victim::new("fails").env("VMTEST_ARTIFACTS", artifacts.path()).env("VMTEST_PACKETS", "64KiB");
    let said = ["`echo the last words; false` ended with exit code 1"];
    victim.run().assert_failed_with(&said).assert_nothing_left();
    let attempt = Kept::all(artifacts.path())[0].dir.clone();
    for (node, ip) in [("web", Ipv4Addr::new(10, 77, 0, 11)), ("db", Ipv4Addr::new(10, 77, 0, 12))] {
        let path = attempt.join("nodes").join(node).join("packets.pcapng");
        let file = fs::read(&path).expect("it is kept");
        assert!(file.len() <= (64 << 10) + 1024, "{} bytes", file.len());
        let packets = packets(&file);
        assert!(packets.iter().any(|(_, from, _)| *from == ip), "nothing from {node}: {packets:?}");
        // The bridge speaks to all of them, too.
        let between = |(_, from, to): &(String, Ipv4Addr, Ipv4Addr)| to.is_multicast() || [from, to].contains(&&ip);
        assert!(packets.iter().all(between), "{node}: {packets:?}");
        // Where they are installed, the readers of people read it too.
        for (program, args) in [("tcpdump", ["-n", "-r"]), ("tshark", ["-n", "-r"])] {
            let Ok(read) = Command::new(program).args(args).arg(&path).output() else { continue };
            assert!(read.status.success(), "{program}: {read:?}");
            assert!(String::from_utf8_lossy(&read.stdout).contains(&ip.to_string()), "{program}: {read:?}");
        }
    }
}

#[test]
fn nothing_is_kept_of_what_passes_and_where_it_was_not_asked_for() {
    for (victim, packets) in [("passes", Some("1MiB")), ("fails", None)] {
        let artifacts = TempDir::new().expect("a temporary directory");
        let run = Victim::new(victim).env("VMTEST_ARTIFACTS", artifacts.path());
        let ended = packets.into_iter().fold(run, |run, limit| run.env("VMTEST_PACKETS", limit)).run();
        assert_eq!(ended.passed(), victim == "passes", "{}", ended.text());
        let files = Kept::all(artifacts.path())[0].files();
        assert!(!files.iter().any(|file| file.ends_with(".pcapng")), "{files:?}");
    }
}
