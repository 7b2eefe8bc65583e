use vmtest::prelude::*;

#[vm_test(ip = "10.77.0.50")]
async fn boots(_node: Node) {}

fn main() {}
