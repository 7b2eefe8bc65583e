use vmtest::prelude::*;

#[vm_test]
async fn boots(#[node(cpu = 2)] _node: Node) {}

fn main() {}
