//! A web server on loopback that does what a test tells it to.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// What it does with one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    /// Sends what was asked for, from the byte that was asked for.
    Whole,
    /// Sends all of it, whatever was asked for.
    NoRanges,
    /// Says how much there is, and ends after so many bytes of it.
    Truncated(usize),
    /// The same, and then it says no more, without an end.
    Stalled(usize),
    /// Answers with this status, and nothing else.
    Status(u16),
    /// Sends other bytes, as many.
    Wrong,
    /// Sends the client to another path.
    Moved,
    /// Ends the connection at once.
    Gone,
}

/// Gives each request the next of its answers, and all that come after them the last.
#[derive(Debug)]
pub(crate) struct Server {
    port: u16,
    ranges: Arc<Mutex<Vec<Option<usize>>>>,
}

impl Server {
    /// Serves these bytes.
    pub(crate) fn start(content: Vec<u8>, answers: &[Answer]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has free ports");
        let port = listener.local_addr().expect("it is bound").port();
        let ranges = Arc::new(Mutex::new(Vec::new()));
        let (seen, answers) = (ranges.clone(), answers.to_vec());
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let answer = answers.get(number).or(answers.last()).copied().expect("a server has an answer");
                let (content, seen) = (content.clone(), seen.clone());
                // A client that goes is none of its business.
                thread::spawn(move || stream.and_then(|stream| serve(stream, &content, answer, &seen)).ok());
            }
        });
        Self { port, ranges }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/releases/the-file?raw=1", self.port)
    }

    /// From which byte each request asked for it; `None` for all of it.
    pub(crate) fn asked(&self) -> Vec<Option<usize>> {
        self.ranges.lock().expect("no thread panics with it").clone()
    }
}

fn serve(
    mut stream: TcpStream,
    content: &[u8],
    answer: Answer,
    seen: &Mutex<Vec<Option<usize>>>,
) -> std::io::Result<()> {
    let mut from = None;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(range) = line.strip_prefix("range: bytes=") {
            from = range.trim_end_matches('-').parse().ok();
        }
    }
    seen.lock().expect("no thread panics with it").push(from);
    let from = from.filter(|_| !matches!(answer, Answer::NoRanges));
    let rest = content.get(from.unwrap_or_default()..).unwrap_or_default();
    let status = match (answer, from) {
        (Answer::Gone, _) => return Ok(()),
        (Answer::Status(status), _) => {
            return write!(stream, "HTTP/1.1 {status} Some\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        }
        (Answer::Moved, _) => {
            return write!(
                stream,
                "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        (_, Some(from)) if from >= content.len() => {
            let total = content.len();
            return write!(
                stream,
                "HTTP/1.1 416 No\r\nContent-Range: bytes */{total}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            );
        }
        (_, Some(from)) => {
            let (last, total) = (content.len() - 1, content.len());
            format!("206 Partial Content\r\nContent-Range: bytes {from}-{last}/{total}")
        }
        (_, None) => "200 OK".to_owned(),
    };
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", rest.len())?;
    match answer {
        Answer::Truncated(bytes) => stream.write_all(&rest[..bytes.min(rest.len())]),
        Answer::Stalled(bytes) => {
            stream.write_all(&rest[..bytes.min(rest.len())])?;
            // Until the client goes.
            BufReader::new(stream).read_until(0, &mut Vec::new()).map(drop)
        }
        Answer::Wrong => stream.write_all(&vec![b'x'; rest.len()]),
        _ => stream.write_all(rest),
    }
}
