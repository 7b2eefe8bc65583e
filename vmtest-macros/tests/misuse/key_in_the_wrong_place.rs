use vmtest::prelude::*;

#[vm_test]
async fn boots(#[node(timeout = "3m")] _node: Node) {}

fn main() {}
