//! Stands for a cloud-hypervisor, or a Firecracker, that does something wrong, which the name of the file says by which it
//! was started.

use std::{
    env,
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::exit,
    thread,
};

use nix::sys::socket::{MsgFlags, accept, recv, send};

/// Where the listening socket of cloud-hypervisor's API is.
const API: i32 = 3;
/// The socket that Firecracker makes.
const OWN_API: &str = "api.sock";
/// What the name of one that stands for Firecracker begins with.
const FIRECRACKER: &str = "firecracker-";
const DONE: &str = "HTTP/1.1 204 No Content\r\n\r\n";
/// What v54 says of a file that is no kernel.
const NO_KERNEL: &str = r#"["Error from API", "The VM could not boot", "Cannot load the kernel", "Invalid bzImage"]"#;
/// What Firecracker v1.16 says of one.
const NO_ELF: &str = r#"{"fault_message":"Cannot load kernel due to invalid memory configuration or invalid kernel image: Invalid Elf magic number"}"#;

fn main() {
    let mut arguments = env::args();
    let name = arguments.next().unwrap_or_default();
    let name = Path::new(&name).file_name().unwrap_or_default().to_string_lossy().into_owned();
    let (is_firecracker, does) = match name.strip_prefix(FIRECRACKER) {
        Some(does) => (true, does),
        None => (false, &*name),
    };
    if arguments.next().as_deref() == Some("--version") {
        let old = does == "old";
        match is_firecracker {
            true => println!("Firecracker v{}", if old { "1.9.1" } else { "1.16.1" }),
            false => println!("cloud-hypervisor v{}", if old { "44.0" } else { "54.0" }),
        }
        return;
    }
    match does {
        "exits" => {
            eprintln!("Error: there is something that it cannot do");
            exit(3);
        }
        "refuses-the-kernel" if is_firecracker => serve_its_own(),
        "refuses-the-kernel" => serve("vm.boot", NO_KERNEL),
        "refuses-the-machine" => serve("vm.create", "it is out of order\n"),
        _ => loop {
            thread::park();
        },
    }
}

/// Answers one call a connection: it does everything but this.
fn serve(refused: &str, why: &str) {
    let refused = format!("PUT /api/v1/{refused}");
    while let Ok(call) = accept(API) {
        let mut request = [0; 16 << 10];
        let read = recv(call, &mut request, MsgFlags::empty()).unwrap_or_default();
        let refused = request[..read].starts_with(refused.as_bytes());
        let answer = if refused { refusal("500 Internal Server Error", why) } else { DONE.to_owned() };
        // Whoever asked may have gone.
        _ = send(call, answer.as_bytes(), MsgFlags::empty());
    }
}

/// The same on a socket that it makes itself.
fn serve_its_own() {
    let listener = UnixListener::bind(OWN_API).expect("it is in its own folder");
    for mut call in listener.incoming().flatten() {
        let mut request = [0; 16 << 10];
        let read = call.read(&mut request).unwrap_or_default();
        let refused = request[..read].starts_with(b"PUT /actions");
        let answer = if refused { refusal("400 Bad Request", NO_ELF) } else { DONE.to_owned() };
        _ = call.write_all(answer.as_bytes());
    }
}

fn refusal(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
