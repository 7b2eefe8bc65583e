use vmtest::prelude::*;

#[vm_test(backend = ["qemu", "qemu", fake, "a, b"], image = [], kernel = ["a-b", "a_b"])]
async fn boots(#[node(image = ["micro"])] _node: Node) {}

fn main() {}
