//! Where a Debian comes from, on machines whose apt is told something else than this one's.

use std::{
    fs::{self, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use vmtest::prelude::*;
use vmtest_tests::{StandIn, Victim, Web, find_on_path};

/// Tests that cannot run.
mod victims {
    use super::*;

    #[vm_test(image = "debian-12", backend = "qemu")]
    #[ignore = "run by the others"]
    async fn a_debian(_node: Node) {}
}

/// A package that nobody can install.
const PACKAGES: &str = "Package: only\nVersion: 1\nArchitecture: all\nFilename: only.deb\nSize: 1\nDescription: -\n";

/// An apt with sources and lists of its own, and a mirror on loopback.
struct Machine {
    dir: TempDir,
    web: Web,
}

impl Machine {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        fs::create_dir_all(dir.path().join("lists/partial"))?;
        fs::create_dir_all(dir.path().join("images"))?;
        let options = format!(
            "Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{0}/sources\";\nDir::State::lists \"{0}/lists\";\n\
             Dir::Cache \"{0}\";\nAPT::Sandbox::User \"root\";\nAcquire::AllowInsecureRepositories \"true\";\n",
            dir.path().display()
        );
        fs::create_dir(dir.path().join("sources"))?;
        fs::write(dir.path().join("apt.conf"), options)?;
        let web = Web::serve(&dir.path().join("web"));
        Ok(Self { dir, web })
    }

    /// Puts a release on the mirror, which has the one package.
    fn publish(&self, codename: &str) -> Result<String> {
        let dists = self.dir.path().join("web/dists").join(codename);
        fs::create_dir_all(dists.join("main/binary-amd64"))?;
        fs::write(dists.join("main/binary-amd64/Packages"), PACKAGES)?;
        let digest: String = Sha256::digest(PACKAGES).iter().map(|byte| format!("{byte:02x}")).collect();
        let release = format!(
            "Origin: Debian\nCodename: {codename}\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nArchitectures: amd64\n\
             Components: main\nSHA256:\n {digest} {} main/binary-amd64/Packages\n",
            PACKAGES.len()
        );
        fs::write(dists.join("Release"), &release)?;
        Ok(release)
    }

    /// The same, signed by a key of its own, which is the result, as text.
    fn publish_signed(&self, codename: &str) -> Result<String> {
        let release = self.publish(codename)?;
        fs::create_dir(self.keys())?;
        fs::set_permissions(self.keys(), Permissions::from_mode(0o700))?;
        self.gpg(&["--quick-gen-key", "somebody", "ed25519", "sign", "never"], "")?;
        let signed = self.gpg(&["--clearsign"], &release)?;
        fs::write(self.dir.path().join("web/dists").join(codename).join("InRelease"), signed)?;
        let key = self.gpg(&["--armor", "--export"], "")?;
        // It would see only after a while that nobody needs it.
        Command::new("gpgconf").args(["--kill", "gpg-agent"]).env("GNUPGHOME", self.keys()).status()?;
        Ok(key)
    }

    fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    fn gpg(&self, args: &[&str], input: &str) -> Result<String> {
        let mut gpg = Command::new("gpg");
        gpg.args(["--quiet", "--batch", "--passphrase", ""]).args(args).env("GNUPGHOME", self.keys());
        let mut gpg = gpg.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        gpg.stdin.take().expect("it was asked for").write_all(input.as_bytes())?;
        let ended = gpg.wait_with_output()?;
        assert!(ended.status.success(), "{ended:?}");
        Ok(String::from_utf8(ended.stdout)?)
    }

    /// Has its apt know what these sources have.
    fn update(&self, file: &str, sources: &str) -> Result {
        fs::write(self.dir.path().join("sources").join(file), sources)?;
        let mut update = Command::new("apt-get");
        let ended = update.arg("update").env("APT_CONFIG", self.dir.path().join("apt.conf")).output()?;
        assert!(ended.status.success(), "{ended:?}");
        Ok(())
    }

    /// Makes a Debian there, which fails with this and leaves nothing.
    fn fails_with(&self, said: &[&str]) {
        fails_with(Victim::new("a_debian").env("APT_CONFIG", self.dir.path().join("apt.conf")), self.dir.path(), said);
    }
}

fn fails_with(victim: Victim, cache: &Path, said: &[&str]) {
    victim.with_cache(cache).run().assert_failed_with(said).assert_nothing_left();
}

#[test]
fn a_machine_without_a_debian_says_so() -> Result {
    let said =
        ["bookworm cannot be had from the apt sources of this machine: they have no Debian", "run `apt-get update`"];
    Machine::new()?.fails_with(&said);
    Ok(())
}

mod real {
    use super::*;

    #[test]
    fn a_release_that_no_mirror_has_is_named() -> Result {
        let machine = Machine::new()?;
        machine.publish("trixie")?;
        let mirror = machine.web.url("");
        machine.update("a.list", &format!("deb {mirror} trixie main\n"))?;
        let refused = "bookworm cannot be had from the apt sources of this machine: E: ";
        machine.fails_with(&[refused, " bookworm Release' does not have a Release file.: add a mirror that has it"]);

        // One that is trusted needs no such file.
        machine.update("a.list", &format!("deb [trusted=yes] {mirror} trixie main\n"))?;
        let missing = format!("{refused}Failed to fetch {mirror}dists/bookworm/main/binary-amd64/Packages");
        machine.fails_with(&[&missing, ": see by `apt-get update` as root that"]);
        Ok(())
    }

    /// What it has is signed by a key that this machine knows for it alone, so it gets as far as to the packages.
    #[test]
    fn a_mirror_is_trusted_as_the_machine_trusts_it() -> Result {
        if find_on_path("gpg").is_none() {
            eprintln!("not run: gpg is not installed");
            return Ok(());
        }
        let machine = Machine::new()?;
        let key = machine.publish_signed("bookworm")?;
        let (file, mirror) = (machine.dir.path().join("key.asc"), machine.web.url(""));
        fs::write(&file, &key)?;
        let line = format!("# The first line.\ndeb [arch=amd64 signed-by={}] {mirror} bookworm main\n", file.display());
        machine.update("a.list", &line)?;
        let said = ["there is no package `", "` in bookworm"];
        machine.fails_with(&said);

        fs::remove_file(machine.dir.path().join("sources/a.list"))?;
        let inline: String =
            key.lines().map(|line| format!(" {}\n", if line.is_empty() { "." } else { line })).collect();
        let stanza = format!("Types: deb\nURIs: {mirror}\nSuites: bookworm\nComponents: main\nSigned-By:\n{inline}");
        machine.update("a.sources", &stanza)?;
        machine.fails_with(&said);
        Ok(())
    }

    #[test]
    fn a_debian_cannot_be_had_without_a_network() -> Result {
        let cache = tempfile::tempdir()?;
        fs::create_dir(cache.path().join("images"))?;
        let said = [
            "bookworm cannot be had from the apt sources of this machine: ",
            ": see by `apt-get update` as root that this machine reaches them",
        ];
        fails_with(StandIn::new().victim("a_debian"), cache.path(), &said);
        Ok(())
    }
}
