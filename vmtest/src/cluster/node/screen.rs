//! What a machine's screen shows.

use std::fs;

use super::{Node, power::api};
use crate::{
    cluster::member::Member,
    error::{Error, Kind, Phase},
};

impl Node {
    /// What the machine's screen shows now, as a PNG file; for a test that says `requires(screenshot)`. A guest's console is
    /// its serial port: what shall be on the screen, it has to write there, as a kernel with `kernel_args = "console=tty0"`
    /// does. Cancel-safe.
    ///
    /// Where such a test fails, the screen of each machine that runs is in its artifacts, as `nodes/<name>/screen.png`.
    ///
    /// ```no_run
    /// use vmtest::prelude::*;
    ///
    /// #[vm_test(requires(screenshot), kernel_args = "console=tty0")]
    /// async fn is_seen(node: Node, artifacts: Artifacts) -> Result {
    ///     artifacts.save("boot.png", node.screenshot().await?)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Kind::Spec`](crate::Kind::Spec) for a test that does not say `requires(screenshot)`,
    /// [`Kind::MachineDied`](crate::Kind::MachineDied) for a machine that is off, [`Kind::Host`](crate::Kind::Host) for a VMM
    /// that refuses.
    pub async fn screenshot(&self) -> Result<Vec<u8>, Error> {
        let shot = self.member.during_boot(screenshot(&self.member));
        self.member.tasks.unless_over(shot).await.map_err(|e| e.in_phase(Phase::Body))
    }
}

/// What this machine's screen shows, as a PNG file. Cancel-safe.
///
/// # Errors
/// [`Kind::Spec`] for one without a screen, [`Kind::Host`] for a VMM that refuses.
pub(in crate::cluster) async fn screenshot(member: &Member) -> Result<Vec<u8>, Error> {
    if !member.plan.screen {
        return Err(Error::new(Kind::Spec, "it has no screen: say `requires(screenshot)` on the test"));
    }
    let unread = |e| Error::new(Kind::Host, "cannot read what the VMM has taken of the screen").caused_by(e);
    // One of its own for each that asks.
    let file = tempfile::Builder::new().prefix("screen-").suffix(".png").tempfile_in(&member.dir).map_err(unread)?;
    let name = file.path().file_name().unwrap_or_default().to_string_lossy();
    api(member)?.screenshot(&name).await?;
    fs::read(file.path()).map_err(unread)
}
