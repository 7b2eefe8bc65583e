//! `cargo vmtest list`.

use std::process::ExitCode;

use super::{
    declared::{List, Test, build_and_ask},
    output::{Colour, line},
};

/// Shows the tests that make clusters, with what they declare.
pub(crate) fn run(json: bool, args: &[String]) -> Result<ExitCode, String> {
    let tests = build_and_ask(args)?;
    if json {
        line(serde_json::to_string_pretty(&List::from(tests)).expect("a list is plain data"));
        return Ok(ExitCode::SUCCESS);
    }
    if tests.is_empty() {
        line("there is no test with `#[vm_test]`");
    }
    tests.iter().for_each(show);
    Ok(ExitCode::SUCCESS)
}

fn show(test: &Test) {
    let declared = &test.declared;
    let images: Vec<_> = declared.images.iter().map(ToString::to_string).collect();
    let machines = if declared.nodes == 1 { "1 machine".to_owned() } else { format!("{} machines", declared.nodes) };
    let backends = if declared.backends.is_empty() { "auto".to_owned() } else { declared.backends.join(", ") };
    let ignored = if test.ignored { ", ignored" } else { "" };
    line(format_args!(
        "{}/{}  {machines} with {}, {} on {backends}{ignored}",
        test.target,
        Colour::Bold.of(&declared.path),
        declared.takes,
        images.join(", "),
    ));
}
