use vmtest::prelude::*;

#[vm_test(fixture("tests/data", to = "/srv"))]
async fn boots(_node: Node) {}

fn main() {}
