use vmtest::prelude::*;

#[vm_test(requires(own_kernel, nestd))]
async fn boots(_node: Node) {}

fn main() {}
