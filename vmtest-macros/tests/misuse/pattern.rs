use vmtest::prelude::*;

#[vm_test]
async fn boots((_a, _b): (Node, Node)) {}

fn main() {}
