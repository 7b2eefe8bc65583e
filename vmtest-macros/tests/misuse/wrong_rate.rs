use vmtest::prelude::*;

#[vm_test]
async fn boots(#[node(rate = "10MB")] _node: Node) {}

fn main() {}
