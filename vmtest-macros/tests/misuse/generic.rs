use vmtest::prelude::*;

#[vm_test]
async fn boots<T>(_node: T) {}

fn main() {}
