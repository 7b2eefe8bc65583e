use vmtest::prelude::*;

#[vm_test]
#[vmtest::test]
async fn boots(_node: Node) {}

fn main() {}
