//! A web server on loopback.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

/// Serves the files of a directory until the process ends.
#[derive(Debug)]
pub struct Web {
    port: u16,
    asked: Arc<Mutex<Vec<u64>>>,
}

impl Web {
    /// Serves all of them as they are.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub fn serve(dir: &Path) -> Self {
        Self::interrupted(dir, u64::MAX)
    }

    /// The same, but the first answer ends after so many bytes, whatever it has said.
    ///
    /// # Panics
    /// When loopback has no free port.
    pub fn interrupted(dir: &Path, after: u64) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, dir) = (asked.clone(), dir.to_owned());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (seen, dir) = (seen.clone(), dir.clone());
                let most = if number == 0 { after } else { u64::MAX };
                // A client that goes is none of its business.
                thread::spawn(move || stream.and_then(|stream| answer(stream, &dir, most, &seen)).ok());
            }
        });
        Self { port, asked }
    }

    /// The address of one of its files.
    pub fn url(&self, file: &str) -> String {
        format!("http://127.0.0.1:{}/{file}", self.port)
    }

    /// From which byte each request asked for a file.
    pub fn asked(&self) -> Vec<u64> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(mut stream: TcpStream, dir: &Path, most: u64, seen: &Mutex<Vec<u64>>) -> io::Result<()> {
    let (mut path, mut from) = (PathBuf::new(), 0);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET /") {
            path = dir.join(rest.split(' ').next().unwrap_or_default());
        } else if let Some(range) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().unwrap_or_default();
        }
    }
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(from);
    let Some(mut file) = File::open(path).ok().filter(|file| file.metadata().is_ok_and(|meta| meta.is_file())) else {
        return write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    };
    let total = file.metadata()?.len();
    let status = match from {
        0 => "200 OK".to_owned(),
        _ => format!("206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}", total - 1),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", total - from)?;
    file.seek(SeekFrom::Start(from))?;
    io::copy(&mut file.take(most), &mut stream).map(drop)
}
