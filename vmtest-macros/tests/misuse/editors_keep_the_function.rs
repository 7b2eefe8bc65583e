//! The function is emitted beside the error: what calls it compiles, and what is wrong in its body is said too.

use vmtest::prelude::*;

#[vm_test(cpus = 0)]
async fn boots(node: Node) -> Result {
    node.shell("true").await?;
    Ok(())
}

async fn calls(node: Node) -> Result {
    boots(node).await
}

fn main() {
    drop(calls);
}
