use vmtest::prelude::*;

#[vm_test]
async fn boots(_Primary: Node) {}

fn main() {}
