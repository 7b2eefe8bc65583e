//! Lists of values: one test of each.

use std::{collections::BTreeSet, process::Command};

use vmtest_tests::Victim;

/// Tests with lists.
mod victims {
    use rstest::rstest;
    use vmtest::prelude::*;

    #[vm_test(backend = ["fake", "cloud-hypervisor"], image = ["micro"])]
    #[ignore = "run by each_value_is_what_its_test_runs_with"]
    async fn boots(node: Node, cluster: Cluster) -> Result {
        println!("{} on {}", node.sh("hostname").await?.stdout(), cluster.plan().backend);
        Ok(())
    }

    #[vm_test(backend = ["fake"])]
    #[should_panic(expected = "on purpose")]
    #[ignore = "run by other_attributes_hold_for_each"]
    async fn panics(_node: Node) {
        panic!("on purpose");
    }

    #[rstest]
    #[case(1)]
    #[case(2)]
    #[ignore = "run by other_attributes_hold_for_each"]
    #[vmtest::test(backend = ["fake", "qemu"])]
    async fn grows(#[case] count: usize, #[ignore] cluster: Cluster) -> Result {
        cluster.add_all((0..count).map(|number| NodeSpec::new(format!("late{number}")))).await?;
        println!("{} machines", cluster.nodes().len());
        Ok(())
    }
}

/// The names of the tests here that this filter finds.
fn found(filter: &str) -> BTreeSet<String> {
    let binary = std::env::current_exe().expect("a running test knows its binary");
    let listed = Command::new(binary).args([filter, "--list", "--ignored"]).output().expect("it runs");
    let names = String::from_utf8(listed.stdout).expect("names are text");
    let here = names.lines().filter(|line| line.starts_with("lists::"));
    here.filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

#[test]
fn filters_find_the_tests_of_a_list() {
    let names = |names: &[&str]| names.iter().map(|name| format!("lists::victims::{name}")).collect::<BTreeSet<_>>();
    assert_eq!(found("boots"), names(&["boots_on_fake_with_micro", "boots_on_cloud_hypervisor_with_micro"]));
    assert_eq!(found("_on_qemu"), names(&["grows::case_1_on_qemu", "grows::case_2_on_qemu"]));
}

#[test]
fn each_value_is_what_its_test_runs_with() {
    let ended = Victim::new("boots_on_fake_with_micro").run().assert_passed();
    assert!(ended.text().contains("node on fake"), "{}", ended.text());
    ended.assert_nothing_left();
    // It does not go on with another.
    let absent = Victim::new("boots_on_cloud_hypervisor_with_micro").env("PATH", "/nonexistent");
    let said = ["`lists::victims::boots_on_cloud_hypervisor_with_micro` cannot run: no cloud-hypervisor on PATH: "];
    absent.env("VMTEST_BACKEND", "fake").run().assert_failed_with(&said).assert_nothing_left();
}

#[test]
fn other_attributes_hold_for_each() {
    Victim::new("panics_on_fake").run().assert_passed().assert_nothing_left();
    let ended = Victim::new("grows::case_2_on_fake").run().assert_passed();
    assert!(ended.text().contains("2 machines"), "{}", ended.text());
}
