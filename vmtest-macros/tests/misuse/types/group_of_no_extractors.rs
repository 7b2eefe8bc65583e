use vmtest::prelude::*;

// The compiler drops tests where there is no harness. This is none, as the path of the attribute ends in `test`.
#[vm_test]
#[rustfmt::test]
async fn boots([_a, _b]: [u32; 2]) {}

fn main() {}
