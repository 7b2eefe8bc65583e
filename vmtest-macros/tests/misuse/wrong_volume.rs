use vmtest::prelude::*;

#[vm_test(volume("data", access = "readonly"))]
async fn boots(_node: Node) {}

fn main() {}
