//! Stands for a cloud-hypervisor that does something wrong, which the name of the file says by which it was started.

use std::{env, path::Path, process::exit, thread};

use nix::sys::socket::{MsgFlags, accept, recv, send};

/// Where the listening socket of its API is.
const API: i32 = 3;
const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
/// What v54 says of a file that is no kernel.
const NO_KERNEL: &str = r#"["Error from API", "The VM could not boot", "Cannot load the kernel", "Invalid bzImage"]"#;

fn main() {
    let mut arguments = env::args();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    if arguments.next().as_deref() == Some("--version") {
        println!("cloud-hypervisor v{}", if name == "old" { "44.0" } else { "54.0" });
        return;
    }
    match name.as_str() {
        "exits" => {
            eprintln!("Error: there is something that it cannot do");
            exit(3);
        }
        "refuses-the-kernel" => serve(),
        _ => loop {
            thread::park();
        },
    }
}

/// Answers one call a connection: it does everything but boot.
fn serve() {
    let refusal =
        format!("HTTP/1.1 500 Internal Server Error\r\nContent-Length: {}\r\n\r\n{NO_KERNEL}", NO_KERNEL.len());
    while let Ok(call) = accept(API) {
        let mut request = [0; 16 << 10];
        let read = recv(call, &mut request, MsgFlags::empty()).unwrap_or_default();
        let answer = if request[..read].starts_with(b"PUT /api/v1/vm.boot") { &refusal } else { DONE };
        // Whoever asked may have gone.
        _ = send(call, answer.as_bytes(), MsgFlags::empty());
    }
}
