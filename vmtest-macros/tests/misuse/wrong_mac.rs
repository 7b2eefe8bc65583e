use vmtest::prelude::*;

#[vm_test]
async fn boots(#[node(mac = "53:54:00:00:00:01")] _node: Node) {}

fn main() {}
