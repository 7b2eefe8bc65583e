use vmtest::prelude::*;

#[vm_test]
async fn boots(#[node(ip = "10.77.0.500")] _node: Node) {}

fn main() {}
