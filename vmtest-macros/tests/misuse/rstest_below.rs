use vmtest::prelude::*;

#[vm_test]
#[rstest::rstest]
#[case(1)]
async fn boots(#[case] _n: usize, #[ignore] _node: Node) {}

fn main() {}
