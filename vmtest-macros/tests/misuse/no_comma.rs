use vmtest::prelude::*;

#[vm_test(fixture("tests/data") cpus = 2)]
async fn boots(_node: Node) {}

fn main() {}
