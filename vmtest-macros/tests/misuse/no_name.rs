use vmtest::prelude::*;

#[vm_test]
async fn boots(_: Node) {}

fn main() {}
