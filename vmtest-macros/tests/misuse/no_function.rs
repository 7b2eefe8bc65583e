use vmtest::prelude::*;

#[vm_test]
struct Boots;

fn main() {}
