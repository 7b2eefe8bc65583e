use vmtest::prelude::*;

#[vm_test(cpus = 1, cpus = 2)]
async fn boots(_node: Node) {}

fn main() {}
