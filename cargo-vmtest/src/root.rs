//! The command on the systems that it is built for: on Linux all of it, elsewhere what says that it needs Linux.

#[cfg(target_os = "linux")]
#[path = "main.rs"]
mod command;

/// The version and, where one is known, the commit.
const VERSION: &str = env!("COMMAND_VERSION");

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    command::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    if std::env::args().any(|arg| arg == "-V" || arg == "--version") {
        println!("cargo vmtest {VERSION}");
        return std::process::ExitCode::SUCCESS;
    }
    eprintln!("error: {}", vmtest::enter_rootless().expect_err("it needs Linux"));
    std::process::ExitCode::FAILURE
}
