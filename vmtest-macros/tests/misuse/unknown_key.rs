use vmtest::prelude::*;

#[vm_test(memroy = "512MiB")]
async fn boots(_node: Node) {}

fn main() {}
