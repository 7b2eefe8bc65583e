use vmtest::prelude::*;

#[vm_test(memroy = "512MiB", cpus = 0, timeout = "30")]
fn boots(_: Node, #[node(nodes = 3, image = 12)] _primary: Node, [_a, _primary]: [Node; 3]) -> Result {
    Ok(())
}

fn main() {}
