use vmtest::prelude::*;

#[vm_test]
async fn boots(#[node(fixture("tests/data", at = "srv"))] _node: Node) {}

fn main() {}
