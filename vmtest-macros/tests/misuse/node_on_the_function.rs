use vmtest::prelude::*;

#[vm_test]
#[node(cpus = 2)]
async fn boots(_node: Node) {}

fn main() {}
