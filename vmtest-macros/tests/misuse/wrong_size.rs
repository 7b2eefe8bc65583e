use vmtest::prelude::*;

#[vm_test(memory = "512 bananas")]
async fn boots(_node: Node) {}

fn main() {}
