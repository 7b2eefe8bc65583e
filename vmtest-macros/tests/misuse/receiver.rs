use vmtest::prelude::*;

struct Suite;

impl Suite {
    #[vm_test]
    async fn boots(&self, _node: Node) {}
}

fn main() {}
