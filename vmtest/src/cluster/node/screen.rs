//! What a machine's screen shows.

use super::Node;
use crate::error::{Error, Phase};

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
        let shot = self.member.during_boot(self.member.screenshot());
        self.member.tasks.unless_over(shot).await.map_err(|e| e.in_phase(Phase::Body))
    }
}
