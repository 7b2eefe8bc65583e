use vmtest_macros::vm_test;

#[vm_test(packages = "etcd-server")]
async fn elects(#[node(packages(postgresql, "curl"))] _db: Node) {}

fn main() {}
