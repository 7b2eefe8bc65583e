use vmtest::prelude::*;

#[vm_test]
fn boots(node: Node) -> Result {
    node.kill().await?;
    Ok(())
}

fn main() {}
