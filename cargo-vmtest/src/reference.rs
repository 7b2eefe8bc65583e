//! The page of the book with every command, from what clap parses.

use clap::{Arg, ArgAction, Command, CommandFactory};
use expect_test::expect_file;

use super::{Cli, EXIT_CODES};

#[test]
fn the_page_of_the_book_is_that_of_the_commands() {
    let mut page = format!(
        "# Commands\n\n<!-- Written by a test: see the end of this page. -->\n\n{EXIT_CODES}\n\n\
         `cargo vmtest --version` and `-V` print the version and, where it is known, the commit; `--help` after any command \
         prints what is here.\n"
    );
    let mut cli = Cli::command();
    cli.build();
    for command in cli.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(command, "cargo vmtest", 2, &mut page);
    }
    page += "\n---\n\nThis page is made of what `cargo vmtest` parses by `cargo-vmtest/src/reference.rs`, a test that fails when \
             they differ; `UPDATE_EXPECT=1` writes it anew.\n";
    expect_file!["../../docs/reference/commands.md"].assert_eq(&page);
}

fn describe(command: &Command, before: &str, level: usize, page: &mut String) {
    let name = format!("{before} {}", command.get_name());
    *page += &format!("\n{} `{name}`\n\n", "#".repeat(level));
    let about = command.get_long_about().or_else(|| command.get_about()).expect("every command says what it does");
    let about = about.to_string().replace('\n', " ");
    *page += &format!("{}.\n", about.trim_end_matches('.'));
    let usage = command.clone().render_usage().to_string();
    *page += &format!("\n```text\n{}\n```\n", usage.trim_start_matches("Usage: "));
    let args: Vec<_> =
        command.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())).collect();
    if !args.is_empty() {
        *page += "\n| argument | meaning |\n|---|---|\n";
    }
    for arg in args {
        let help = arg.get_long_help().or_else(|| arg.get_help()).map(|help| help.to_string().replace('\n', " "));
        let help = help.unwrap_or_default();
        *page += &format!("| `{}` | {}.{} |\n", written(arg), help.trim_end_matches('.'), choices(arg));
    }
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        describe(command, &name, level + 1, page);
    }
}

fn written(arg: &Arg) -> String {
    let value =
        arg.get_value_names().map(|names| names.iter().map(|name| format!("<{name}>")).collect::<Vec<_>>().join(" "));
    let value = value.filter(|_| matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)).unwrap_or_default();
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    match arg.get_long() {
        Some(long) => format!("{short}--{long} {value}").trim_end().to_owned(),
        None => value,
    }
}

/// The values of which it takes one, and the one that it has without.
fn choices(arg: &Arg) -> String {
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let mut more = String::new();
    if takes_value && !values.is_empty() {
        more += &format!(" One of {}.", values.join(", "));
    }
    let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect();
    if takes_value && !default.is_empty() {
        more += &format!(" Without: `{}`.", default.join(", "));
    }
    more
}
