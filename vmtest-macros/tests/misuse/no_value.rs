use vmtest::prelude::*;

#[vm_test(image)]
async fn boots(_node: Node) {}

fn main() {}
