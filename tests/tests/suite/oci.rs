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
    use std::{fs, path::Path};

    use serde_json::json;
    use tar::EntryType;
    use vmtest_tests::{Layout, Registry, layer};

    use super::*;

    /// An image with a web server that one of its layers changed, which runs as a user of its own.
    fn image(dir: &Path) -> Result<Layout> {
        let cache = vmtest_tests::cache();
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
        ]);
        let upper = layer(&[("www/.wh.gone", file, b""), ("www/index.html", file, b"of the upper layer\n")]);
        let config = json!({
            "Entrypoint": ["/bin/busybox", "httpd", "-f", "-v", "-p", "8080"], "Cmd": ["-h", "."], "User": "web",
            "WorkingDir": "/www", "Env": ["GREETING=it's me"],
        });
        Ok(Layout::new(&dir.join("web"), &[lower, upper], &config))
    }

    #[test]
    fn an_image_of_a_registry_is_a_machine() -> Result {
        let Some(registry) = Registry::start(false) else { return Ok(()) };
        let dir = tempfile::tempdir()?;
        let layout = image(dir.path())?;
        registry.push(&layout, "test/web", "1");
        let name = registry.image("test/web:1");
        let cache = vmtest_tests::cache();
        let record = vmtest_images::record(&cache, &name.as_str().into())?;
        vmtest_images::pull(&cache, &name.as_str().into(), &())?;
        // From then on it is in the cache.
        drop(registry);
        let cluster = Cluster::builder().backend("qemu").node(NodeSpec::new("web").image(name));
        let digest = layout.digest().to_owned();
        let ran = cluster.run(async move |cluster| -> Result {
            let web = cluster.node("web")?;
            let _service = web.entrypoint()?.await?;
            web.wait_for_port(8080).await?;
            assert_eq!(web.sh("wget -qO- http://127.0.0.1:8080/").await?.stdout(), "of the upper layer");
            let kept = cluster.artifacts().dir()?;
            let plan = fs::read_to_string(kept.with_file_name("plan.json"))?;
            assert!(plan.contains(&digest), "{plan}");
            Ok(())
        });
        // Nobody asks for it by this port again.
        fs::remove_file(record)?;
        ran
    }

    #[test]
    fn a_web_server_answers_from_the_image_of_a_container() -> Result {
        let dir = tempfile::tempdir()?;
        let name = format!("oci:{}", image(dir.path())?.archive().display());
        let cluster =
            Cluster::builder().backend("qemu").node(NodeSpec::new("web").image(name)).node(NodeSpec::new("client"));
        cluster.run(async |cluster| -> Result {
            let (web, client) = (cluster.node("web")?, cluster.node("client")?);
            let service = web.entrypoint()?.await?;
            web.wait_for_port(8080).await?;
            assert_eq!(client.sh("wget -qO- http://web:8080/").await?.stdout(), "of the upper layer");
            assert_eq!(client.sh("wget -qO- http://web:8080/gone").unchecked().await?.code(), Some(1));
            // The server has a process for each answer, which may have ended when its status is read.
            let status = "for file in $(grep -l 'http[d]' /proc/[0-9]*/cmdline); do cat ${file%cmdline}status 2>/dev/null; done; true";
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
