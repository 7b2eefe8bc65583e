use vmtest::prelude::*;

#[vm_test(network("front", ip = "10.77.1.5"))]
async fn address_of_nobody(
    #[node(network)] without: Node,
    #[node(network(front))] no_string: Node,
    #[node(network = "front")] assigned: Node,
    #[node(network("front", ip = "10.77.1", mac = "52:54"))] addresses: Node,
    #[node(network("front", address = "10.77.1.5", ip = "10.77.1.6", ip = "10.77.1.7"))] keys: Node,
) {
}

fn main() {}
