use vmtest::prelude::*;

#[vm_test]
async fn boots(_node: impl Send) {}

fn main() {}
