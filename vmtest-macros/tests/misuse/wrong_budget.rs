use vmtest::prelude::*;

#[vm_test(budget(boot = 20, bodi = "1s", memory = "1GiB"))]
async fn boots(_node: Node) {}

fn main() {}
