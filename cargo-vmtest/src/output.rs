//! What commands print.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    process::exit,
};

use serde::Serialize;

/// Prints this on standard output. Whoever has closed it has read enough: then the command ends, quietly, as `cat` does.
pub(crate) fn print(text: impl Display) {
    bytes(text.to_string().as_bytes());
}

/// The same for a line.
pub(crate) fn line(text: impl Display) {
    print(format_args!("{text}\n"));
}

/// The same for a value, as JSON that people can read too.
///
/// # Errors
/// When it has what JSON cannot say, such as a path that is no text.
pub(crate) fn json(value: &impl Serialize) -> Result<(), String> {
    line(serde_json::to_string_pretty(value).map_err(|e| e.to_string())?);
    Ok(())
}

/// The same for what may be no text.
pub(crate) fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => exit(0),
        Err(e) => {
            eprintln!("error: cannot write to standard output: {e}");
            exit(1);
        }
    }
}

/// This in a colour, where standard output is a terminal and `NO_COLOR` does not forbid it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Colour {
    Bold,
    Green,
    Yellow,
    Red,
}

impl Colour {
    pub(crate) fn of(self, text: impl Display) -> String {
        let code = match self {
            Self::Bold => 1,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        };
        let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}
