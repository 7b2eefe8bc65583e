//! Images of containers as machines.

use vmtest::prelude::*;
use vmtest_tests::Victim;

mod victims {
    use super::*;

    #[vm_test(image = "oci:tests/data/nowhere", backend = "qemu")]
    #[ignore = "run by an_image_that_is_not_there_is_named"]
    async fn nowhere(_node: Node) {}

    #[vm_test(backend = "qemu, fake")]
    #[ignore = "run by an_image_without_a_service_has_no_entrypoint"]
    async fn no_service(node: Node) -> Result {
        node.entrypoint()?.await?.wait().await?;
        Ok(())
    }
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let said = ["`oci:", "tests/data/nowhere` cannot be made: ", "No such file or directory"];
    Victim::new("nowhere").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn an_image_without_a_service_has_no_entrypoint() {
    let said = ["its image says of no program that it is its service"];
    Victim::new("no_service").run().assert_failed_with(&said).assert_nothing_left();
}

mod real {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use serde_json::{Value, json};
    use sha2::{Digest, Sha256};
    use tar::{Builder, EntryType, Header};

    use super::*;

    /// One entry of a layer: its path, what it is, its content or where it leads to.
    type Part<'a> = (&'a str, EntryType, &'a [u8]);

    fn layer(parts: &[Part<'_>]) -> Result<Vec<u8>> {
        let mut archive = Builder::new(Vec::new());
        for &(path, kind, content) in parts {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_uid(0);
            header.set_gid(0);
            match kind {
                EntryType::Symlink => {
                    header.set_size(0);
                    archive.append_link(&mut header, path, std::str::from_utf8(content)?)?;
                }
                _ => {
                    header.set_size(content.len().try_into()?);
                    archive.append_data(&mut header, path, content)?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }

    /// Writes a blob of an image and gives its descriptor.
    fn blob(dir: &Path, kind: &str, bytes: &[u8]) -> Result<Value> {
        let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(dir.join("blobs/sha256").join(&digest), bytes)?;
        Ok(json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{digest}"),
            "size": bytes.len() }))
    }

    /// An image with a web server that one of its layers changed, which runs as a user of its own; as an archive.
    fn image(dir: &Path) -> Result<PathBuf> {
        let cache = vmtest_images::Cache::open(vmtest_images::Cache::default_dir(rustix::process::geteuid().as_raw()))?;
        let micro = vmtest_images::ensure(&cache, &"micro".into(), &())?;
        let busybox = vmtest_images::tree(&micro.initramfs, rustix::process::geteuid().as_raw())?.join("bin/busybox");
        let busybox = fs::read(busybox)?;
        let (file, link) = (EntryType::Regular, EntryType::Symlink);
        let lower = layer(&[
            ("bin/busybox", file, &busybox),
            ("bin/sh", link, b"busybox"),
            ("etc/passwd", file, b"root:x:0:0:root:/:/bin/sh\nweb:x:1234:1234::/:/bin/sh\n"),
            ("www/index.html", file, b"of the lower layer\n"),
            ("www/gone", file, b""),
        ])?;
        let upper = layer(&[("www/.wh.gone", file, b""), ("www/index.html", file, b"of the upper layer\n")])?;
        let layout = dir.join("layout");
        fs::create_dir_all(layout.join("blobs/sha256"))?;
        let layers = [blob(&layout, "layer.v1.tar", &lower)?, blob(&layout, "layer.v1.tar", &upper)?];
        let config = json!({
            "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] },
            "config": {
                "Entrypoint": ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080"], "Cmd": ["-h", "."], "User": "web",
                "WorkingDir": "/www", "Env": ["GREETING=it's me"],
            },
        });
        let config = blob(&layout, "config.v1+json", config.to_string().as_bytes())?;
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let manifest = blob(&layout, "manifest.v1+json", manifest.to_string().as_bytes())?;
        let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
        fs::write(layout.join("index.json"), index.to_string())?;
        let archive = dir.join("web.tar");
        let mut builder = Builder::new(fs::File::create(&archive)?);
        builder.append_dir_all(".", &layout)?;
        builder.finish()?;
        Ok(archive)
    }

    #[test]
    fn a_web_server_answers_from_the_image_of_a_container() -> Result {
        let dir = tempfile::tempdir()?;
        let name = format!("oci:{}", image(dir.path())?.display());
        let cluster =
            Cluster::builder().backend("qemu").node(NodeSpec::new("web").image(name)).node(NodeSpec::new("client"));
        cluster.run(async |cluster| -> Result {
            let (web, client) = (cluster.node("web")?, cluster.node("client")?);
            let service = web.entrypoint()?.await?;
            web.wait_for_port(8080).await?;
            assert_eq!(client.sh("wget -qO- http://web:8080/").await?.stdout(), "of the upper layer");
            assert_eq!(client.sh("wget -qO- http://web:8080/gone").unchecked().await?.code(), Some(1));
            let status = "cat $(grep -l 'http[d]' /proc/[0-9]*/cmdline | sed s/cmdline/status/)";
            let status = web.sh(status).await?.stdout();
            assert!(status.contains("Uid:\t1234\t1234"), "{status}");
            drop(service);

            assert_eq!(
                web.sh("hostname; echo $GREETING; echo $$ >/kept; ls /www").await?.stdout(),
                "web\nit's me\nindex.html"
            );
            let pid = web.sh("cat /kept").await?.stdout();
            web.reboot().await?;
            assert_eq!(web.sh("cat /kept").await?.stdout(), pid, "its disk keeps what was written");
            web.shutdown().await?;
            Ok(())
        })
    }
}
