use vmtest::prelude::*;

#[vm_test]
#[tokio::test]
async fn boots(_node: Node) {}

fn main() {}
