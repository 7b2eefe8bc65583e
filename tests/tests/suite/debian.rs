//! Debian with systemd, and what people run on it.

mod sources;

use vmtest::prelude::*;
use vmtest_tests::Victim;

/// Tests that cannot run.
mod victims {
    use super::*;

    #[vm_test(image = "debian-12", packages("curl"), backend = "fake")]
    #[ignore = "run by a_fake_machine_runs_no_debian"]
    async fn of_fakes(_node: Node) {}

    #[vm_test(packages("curl"), backend = "fake")]
    #[ignore = "run by what_an_image_cannot_be_is_said"]
    async fn packages_without_debian(_node: Node) {}

    #[vm_test(image = "debian-12", packages("etdc-server"), backend = "qemu")]
    #[ignore = "run by a_package_that_does_not_exist_is_named"]
    async fn misspelt(_node: Node) {}

    #[vm_test(image = "debian-12", prepare = "tests/data/prepare_fails.sh", backend = "qemu")]
    #[ignore = "run by a_script_that_fails_is_shown"]
    async fn unprepared(_node: Node) {}
}

#[test]
fn a_fake_machine_runs_no_debian() {
    let said = [
        "node `node`: the image `debian-12 with curl` has a kernel of its own, which a machine of `fake` does not have",
    ];
    Victim::new("of_fakes").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn what_an_image_cannot_be_is_said() {
    let said = ["`micro with curl` cannot be made: it has no package manager and nothing that lasts: take `debian-12`"];
    Victim::new("packages_without_debian").run().assert_failed_with(&said).assert_nothing_left();
}

mod real {
    use std::{fs, path::Path, time::Duration};

    use vmtest::prelude::*;
    use vmtest_images::{ImageSpec, find};
    use vmtest_tests::{Victim, cache, image_cache};

    /// A database starts in seconds with KVM, and in half a minute where three of them share two emulated CPUs. Scaled.
    const SETTLES: Duration = Duration::from_secs(60);

    #[vm_test(image = "debian-12", backend = "qemu", timeout = "4m")]
    async fn a_debian_keeps_what_it_writes(#[node(fixture("tests/data/tree", at = "/srv/tree"))] node: Node) -> Result {
        assert_eq!(node.sh("hostname; cat /etc/hostname").await?.stdout(), "node\nnode");
        assert_eq!(node.sh("cat /proc/1/comm").await?.stdout(), "systemd");
        assert!(node.sh("cat /srv/tree/hello.txt").await?.stdout().contains("hello"));
        node.wait_for_unit("ssh.service").await?;
        let key = node.sh("cat /etc/machine-id").await?.stdout();
        assert_eq!(key.len(), 32, "{key}");

        node.write("/root/synced", "kept").await?;
        node.sh("sync; echo lost >/var/tmp/unsynced").await?;
        node.kill().await?;
        node.start().await?;
        assert_eq!(node.sh("cat /root/synced; echo; cat /etc/machine-id").await?.stdout(), format!("kept\n{key}"));

        node.write("/etc/late", "also kept").await?;
        node.reboot().await?;
        assert_eq!(node.sh("cat /etc/late").await?.stdout(), "also kept");

        node.write("/root/unsynced", "kept too").await?;
        node.shutdown().await?;
        node.start().await?;
        assert_eq!(node.sh("cat /root/unsynced").await?.stdout(), "kept too");
        Ok(())
    }

    #[test]
    fn a_package_that_does_not_exist_is_named() {
        let said = ["image `debian-12 with etdc-server`: there is no package `etdc-server` in bookworm"];
        Victim::new("misspelt").run().assert_failed_with(&said).assert_nothing_left();
    }

    #[ignore = "takes minutes: an image of its own"]
    #[vm_test(image = "debian-12", prepare = "tests/data/prepare.sh", backend = "qemu", timeout = "4m")]
    async fn a_script_prepares_an_image(node: Node) -> Result {
        let said = node.sh("cat /etc/prepared").await?.stdout();
        assert_eq!(said, "prepared by root in /root, apt is its own, questions are for noninteractive");
        let greeter = node.sh("id -u greeter; stat -c %U:%a /usr/local/bin/id-of-greeter; id-of-greeter -un").await?;
        assert_eq!(greeter.stdout(), "1000\ngreeter:4755\ngreeter");
        assert_eq!(node.sh("ls -A /root | grep vmtest").unchecked().await?.stdout(), "", "the script is no part of it");

        // The image goes with what the script says, wherever it is.
        let dir = tempfile::tempdir()?;
        let script = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prepare.sh"))?;
        let of = |content: &[u8]| -> Result<Option<vmtest_images::Image>> {
            let path = dir.path().join("copy.sh");
            fs::write(&path, content)?;
            Ok(find(&cache(), &ImageSpec { prepare: Some(path), ..ImageSpec::from("debian-12") })?)
        };
        assert!(of(&script)?.is_some());
        assert_eq!(of(&[&script, &b"true\n"[..]].concat())?, None, "another script makes another image");
        Ok(())
    }

    #[test]
    #[ignore = "takes a minute: most of an image"]
    fn a_script_that_fails_is_shown() {
        let said = [
            "image `debian-12 with prepare_fails.sh`: the image could not be made, while preparing:",
            "looking for the moon",
            "ls: cannot access '/moon': No such file or directory",
        ];
        let cache = image_cache(|_| {});
        Victim::new("unprepared").with_cache(cache.path()).run().assert_failed_with(&said).assert_nothing_left();
    }

    /// Where the machine has no sources of the newer one, it cannot be made.
    #[ignore = "takes two minutes, and sources of two releases"]
    #[vm_test(backend = "qemu", timeout = "5m")]
    async fn each_release_is_itself(
        #[node(image = "debian-12")] old: Node,
        #[node(image = "debian-13")] new: Node,
    ) -> Result {
        let mut kernels = Vec::new();
        for (node, release) in [(&old, "12."), (&new, "13.")] {
            assert_eq!(node.sh("systemctl is-system-running --wait || true").await?.stdout(), "running");
            let version = node.sh("cat /etc/debian_version").await?.stdout();
            assert!(version.starts_with(release), "{version}");
            let kernel = node.sh("uname -r").await?.stdout();
            // It is the one whose modules are there.
            node.sh(format!("modinfo -k {kernel} xfs && modprobe dummy")).await?;
            kernels.push(kernel);
            // What is loaded when it is wanted is mounted then too.
            node.sh("modprobe configfs && modprobe fuse").await?;
            let mounted = "systemctl start sys-kernel-config.mount sys-fs-fuse-connections.mount \
                           && mountpoint /sys/kernel/config && mountpoint /sys/fs/fuse/connections";
            node.sh(mounted).await?;
            node.sh("mountpoint /dev/hugepages && mountpoint /dev/mqueue && mountpoint /sys/kernel/tracing").await?;
        }
        assert_ne!(kernels[0], kernels[1]);
        new.reboot().await?;
        new.shutdown().await?;
        Ok(())
    }

    /// The member of the cluster that leads it, as this machine sees it, if it sees one.
    async fn leader(asked: &Node, all: &[&Node]) -> Result<String> {
        let urls: Vec<_> = all.iter().map(|node| format!("http://{}:2379", node.ip())).collect();
        let script = format!("ETCDCTL_API=3 etcdctl --endpoints={} endpoint status -w fields", urls.join(","));
        let text = asked.sh(script).await?.stdout();
        // A block for each member; its own id and that of the leader are in it.
        let field = |block: &str, name: &str| {
            let line = block.lines().find(|line| line.starts_with(&format!("\"{name}\" :")))?;
            Some(line.split(" : ").nth(1)?.trim_matches('"').to_owned())
        };
        let led = text.split("\n\n").find_map(|block| {
            let (own, leader) = (field(block, "MemberID")?, field(block, "Leader")?);
            (own == leader).then(|| field(block, "Endpoint")).flatten()
        });
        let led = led.and_then(|url| all.iter().find(|node| url.contains(&node.ip().to_string())));
        led.map(|node| node.name().to_owned()).ok_or_else(|| Failure::msg(format!("nobody leads:\n{text}")))
    }

    #[ignore = "takes minutes: an image of its own, and three machines"]
    #[vm_test(image = "debian-12", packages("etcd-server", "etcd-client"), backend = "qemu", timeout = "5m")]
    async fn etcd_elects_another_leader([a, b, c]: [Node; 3]) -> Result {
        let all = [&a, &b, &c];
        let members: Vec<_> = all.iter().map(|node| format!("{0}=http://{1}:2380", node.name(), node.ip())).collect();
        let members = members.join(",");
        for node in all {
            let (name, ip) = (node.name(), node.ip());
            let config = format!(
                "ETCD_NAME={name}\nETCD_DATA_DIR=/var/lib/etcd/cluster\nETCD_INITIAL_CLUSTER={members}\n\
                 ETCD_INITIAL_ADVERTISE_PEER_URLS=http://{ip}:2380\nETCD_LISTEN_PEER_URLS=http://{ip}:2380\n\
                 ETCD_LISTEN_CLIENT_URLS=http://{ip}:2379\nETCD_ADVERTISE_CLIENT_URLS=http://{ip}:2379\n\
                 ETCD_HEARTBEAT_INTERVAL=500\nETCD_ELECTION_TIMEOUT=5000\n"
            );
            node.write("/etc/default/etcd", config).await?;
            // The power of one will be cut before Linux has written by itself what was written half a minute ago.
            node.sh("sync").await?;
            // It starts with the machine, alone; the others are not there yet when the first is told.
            node.sh("systemctl stop etcd; systemctl start --no-block etcd").timeout(SETTLES).await?;
        }
        for node in all {
            node.wait_for_unit("etcd.service").within(SETTLES).await?;
        }
        let first = eventually("a leader is elected", SETTLES, async || leader(&a, &all).await).await?;
        let put = "ETCDCTL_API=3 etcdctl --endpoints=http://$(hostname):2379 put colour blue";
        a.sh(put).await?;

        let old = all.into_iter().find(|node| node.name() == first).expect("it is one of them");
        let rest: Vec<_> = all.into_iter().filter(|node| node.name() != first).collect();
        old.kill().await?;
        let second = eventually("another leader is elected", SETTLES, async || leader(rest[0], &rest).await).await?;
        assert_ne!(second, first);

        old.start().await?;
        old.wait_for_unit("etcd.service").within(SETTLES).await?;
        let get = "ETCDCTL_API=3 etcdctl --endpoints=http://$(hostname):2379 get colour --print-value-only";
        let read = async || -> Result<String> { Ok(old.sh(get).await?.stdout()) };
        assert_eq!(eventually("the old one has rejoined", SETTLES, read).await?, "blue");
        let now = eventually("all see a leader", SETTLES, async || leader(old, &all).await).await?;
        assert!(all.iter().any(|node| node.name() == now));
        Ok(())
    }

    #[ignore = "takes minutes: an image of its own, and two machines"]
    #[vm_test(image = "debian-12", packages("postgresql"), backend = "qemu", timeout = "5m")]
    async fn a_postgres_follows_another(primary: Node, standby: Node) -> Result {
        let sql = |text: &str| format!("su postgres -c \"psql -At -c \\\"{text}\\\"\"");
        let (config, data) = ("/etc/postgresql/15/main", "/var/lib/postgresql/15/main");
        primary.wait_for_unit("postgresql@15-main.service").within(SETTLES).await?;
        primary
            .sh(format!(
                "echo \"listen_addresses = '*'\" >>{config}/postgresql.conf
                echo 'host replication copier {}/32 trust' >>{config}/pg_hba.conf",
                standby.ip()
            ))
            .await?;
        primary.sh("systemctl restart postgresql@15-main").timeout(SETTLES).await?;
        primary.sh(sql("CREATE ROLE copier REPLICATION LOGIN")).await?;
        primary.sh(sql("CREATE TABLE colours (name text)")).await?;

        standby.wait_for_unit("postgresql@15-main.service").within(SETTLES).await?;
        standby
            .sh(format!(
                "systemctl stop postgresql@15-main && rm -r {data} &&
                su postgres -c 'pg_basebackup -h primary -U copier -D {data} -R -X stream -c fast' &&
                systemctl start postgresql@15-main"
            ))
            .timeout(SETTLES)
            .await?;
        primary.sh(sql("INSERT INTO colours VALUES ('blue')")).await?;
        let read = async || match standby.sh(sql("SELECT name FROM colours")).await?.stdout() {
            name if name == "blue" => Ok(()),
            other => Err(Failure::msg(format!("it has {other:?}"))),
        };
        eventually("the standby has what the primary was given", SETTLES, read).await?;

        primary.kill().await?;
        standby
            .sh("su postgres -c '/usr/lib/postgresql/15/bin/pg_ctl promote -w -D /var/lib/postgresql/15/main'")
            .await?;
        standby.sh(sql("INSERT INTO colours VALUES ('red')")).await?;
        assert_eq!(standby.sh(sql("SELECT name FROM colours ORDER BY 1")).await?.stdout(), "blue\nred");
        Ok(())
    }
}
