use vmtest::prelude::*;

#[vm_test]
async fn boots([_a, _b]: [Node; 3]) {}

fn main() {}
