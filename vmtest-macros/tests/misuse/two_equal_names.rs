use vmtest::prelude::*;

#[vm_test]
async fn boots(_db_1: Node, [_a, __db_1]: [Node; 2]) {}

#[vm_test]
async fn boots_too(_a: Node, [_a, _b]: [Node; 2]) {}

fn main() {}
