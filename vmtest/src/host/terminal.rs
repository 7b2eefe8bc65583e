//! The terminal of whoever runs the tests.

use std::{
    io::{IsTerminal, stdin},
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::{fcntl_dupfd_cloexec, read},
    process::getpgrp,
    termios::tcgetpgrp,
};
use tokio::{io::unix::AsyncFd, sync::Mutex};

use crate::sys::watch_readable;

/// Held by whoever reads a line: two that wait for one would share it.
static READER: Mutex<()> = Mutex::const_new(());

/// Resolves when somebody has pressed Enter; `None` where standard input is no terminal, or is another job's. Must be called
/// and awaited on a tokio runtime. Cancel-safe: what was typed is left to the next reader.
pub(crate) fn entered() -> Option<impl Future<Output = ()> + Send + use<>> {
    let input = stdin();
    // A job in the background is stopped by the kernel when it reads.
    let ours = input.is_terminal() && tcgetpgrp(&input).is_ok_and(|group| group == getpgrp());
    let terminal = ours.then(|| fcntl_dupfd_cloexec(input.as_fd(), 3).ok()).flatten()?;
    let terminal = watch_readable(terminal).ok()?;
    Some(async move {
        let _alone = READER.lock().await;
        line(&terminal).await;
    })
}

/// Not made non-blocking, because that would be so for everybody who has this terminal; one that is ready has a whole line.
async fn line(terminal: &AsyncFd<OwnedFd>) {
    let mut buffer = [0; 4096];
    loop {
        let Ok(mut ready) = terminal.readable().await else { return std::future::pending().await };
        match read(terminal.get_ref(), &mut buffer) {
            // A terminal that is closed, or Ctrl-D: nobody will press anything.
            Ok(0) | Err(_) => return std::future::pending().await,
            Ok(length) if buffer[..length].contains(&b'\n') => return,
            Ok(_) => ready.clear_ready(),
        }
    }
}
