use vmtest::prelude::*;

#[vm_test(cpus = "two")]
async fn boots(_node: Node) {}

fn main() {}
