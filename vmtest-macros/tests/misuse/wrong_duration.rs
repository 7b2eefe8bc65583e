use vmtest::prelude::*;

#[vm_test(timeout = "30")]
async fn boots(_node: Node) {}

fn main() {}
