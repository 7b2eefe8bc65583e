//! A Chromium without a window, driven over two pipes by its own protocol: no port of the host, and no library that drags
//! in a web server's worth of others.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Write, pipe},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

use command_fds::{CommandFdExt, FdMapping};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The names under which distributions have it.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Only against hanging: it starts in seconds, also on a host that does something else.
const ANSWERS_WITHIN: Duration = Duration::from_secs(120);
/// It ends in a tenth of that, or has been ended.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Where it reads what it shall do, and where it says what happens.
const ASKED: i32 = 3;
const SAID: i32 = 4;

/// The browser of this host, if it has one.
pub(crate) fn installed() -> Option<PathBuf> {
    NAMES.iter().find_map(|name| vmtest_tests::find_on_path(name))
}

/// One page in a browser of its own.
#[derive(Debug)]
pub(crate) struct Page {
    browser: Child,
    _profile: TempDir,
    ask: File,
    messages: Receiver<Value>,
    /// What was said while an answer was awaited.
    events: VecDeque<Value>,
    session: Value,
    asked: u64,
    /// What the page has complained about.
    complaints: Vec<String>,
}

impl Page {
    /// An empty one, as wide and as high as this.
    pub(crate) fn new(width: u32, height: u32) -> Self {
        let profile = TempDir::new().expect("a temporary directory");
        let ((commands, ask), (said, events)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        let mut command = Command::new(installed().expect("it was looked for"));
        // A sandbox of its own takes rights that root in a container does not have; the page is ours.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-dev-shm-usage", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        let mapping = |parent_fd: OwnedFd, child_fd| FdMapping { parent_fd, child_fd };
        let mappings = vec![mapping(commands.into(), ASKED), mapping(events.into(), SAID)];
        command.fd_mappings(mappings).expect("they are different").stdin(Stdio::null()).stdout(Stdio::null());
        let browser = command.stderr(Stdio::null()).spawn().expect("chromium starts");
        // The ends of the child are closed here with it.
        drop(command);
        let (tell, messages) = channel();
        thread::spawn(move || {
            for message in BufReader::new(said).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("each message is JSON");
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let mut page = Self {
            browser,
            _profile: profile,
            ask: File::from(OwnedFd::from(ask)),
            messages,
            events: VecDeque::new(),
            session: Value::Null,
            asked: 0,
            complaints: Vec::new(),
        };
        let target = page.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = page.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        page.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), json!({}));
        }
        // In time of the page's thread, which a busy host does not change.
        page.call("Performance.enable", json!({ "timeDomain": "threadTicks" }));
        page.resize(width, height);
        page
    }

    /// As wide and as high as this from now on.
    pub(crate) fn resize(&mut self, width: u32, height: u32) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// In dark colours, or in light ones.
    pub(crate) fn colours(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Opens a file, and waits until it is loaded.
    pub(crate) fn open(&mut self, path: &Path) {
        self.events.clear();
        self.call("Page.navigate", json!({ "url": format!("file://{}", path.display()) }));
        self.until("Page.loadEventFired");
    }

    /// What this expression of the page's script is.
    pub(crate) fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// What it is as text.
    pub(crate) fn text(&mut self, expression: &str) -> String {
        let value = self.eval(expression);
        value.as_str().unwrap_or_else(|| panic!("`{expression}` is no text: {value}")).to_owned()
    }

    /// What it is as a number.
    pub(crate) fn number(&mut self, expression: &str) -> f64 {
        let value = self.eval(expression);
        value.as_f64().unwrap_or_else(|| panic!("`{expression}` is no number: {value}"))
    }

    /// Where the middle of an element is, which is brought into view.
    pub(crate) fn middle(&mut self, selector: &str) -> (f64, f64) {
        let rect = format!(
            "(() => {{ const e = document.querySelector('{selector}'); e.scrollIntoView({{ block: 'center' }}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let at = self.eval(&rect);
        (at[0].as_f64().expect("it is somewhere"), at[1].as_f64().expect("it is somewhere"))
    }

    /// Moves the mouse to a place, with a button that is pressed or not, or presses or lets go of one there.
    pub(crate) fn mouse(&mut self, kind: &str, (x, y): (f64, f64), held: bool) {
        let button = if held || kind != "mouseMoved" { "left" } else { "none" };
        let event =
            json!({ "type": kind, "x": x, "y": y, "button": button, "buttons": u8::from(held), "clickCount": 1 });
        self.call("Input.dispatchMouseEvent", event);
    }

    /// Turns the wheel at a place, with the control key held.
    pub(crate) fn wheel(&mut self, (x, y): (f64, f64), by: f64) {
        const CONTROL: u8 = 2;
        let event = json!({ "type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": by, "modifiers": CONTROL });
        self.call("Input.dispatchMouseEvent", event);
    }

    /// Clicks on the middle of an element.
    pub(crate) fn click(&mut self, selector: &str) {
        let at = self.middle(selector);
        self.mouse("mouseMoved", at, false);
        self.mouse("mousePressed", at, true);
        self.mouse("mouseReleased", at, false);
    }

    /// Clicks on a link, and waits until what it leads to is loaded.
    pub(crate) fn follow(&mut self, selector: &str) {
        self.events.clear();
        self.click(selector);
        self.until("Page.loadEventFired");
    }

    /// Writes into what has the focus.
    pub(crate) fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// How many seconds of its thread's time the page has used.
    pub(crate) fn thread_time(&mut self) -> f64 {
        let metrics = self.call("Performance.getMetrics", json!({}));
        let all = metrics["metrics"].as_array().expect("they are a list");
        let task = all.iter().find(|metric| metric["name"] == "TaskDuration").expect("it is measured");
        task["value"].as_f64().expect("it is a number")
    }

    /// What the page has written to the console as an error, or has thrown, or could not load.
    pub(crate) fn complaints(&mut self) -> &[String] {
        // Whatever was said before the answer has been seen with it.
        self.eval("0");
        &self.complaints
    }

    /// Waits for an event.
    fn until(&mut self, method: &str) {
        loop {
            while let Some(event) = self.events.pop_front() {
                if event["method"] == method {
                    return;
                }
            }
            let message = self.next();
            self.events.push_back(message);
        }
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let mut message = json!({ "id": id, "method": method, "params": params });
        if !self.session.is_null() {
            message["sessionId"] = self.session.clone();
        }
        self.ask.write_all(format!("{message}\0").as_bytes()).expect("chromium listens");
        loop {
            let message = self.next();
            if message["id"] == id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.events.push_back(message);
        }
    }

    fn next(&mut self) -> Value {
        let message = self.messages.recv_timeout(ANSWERS_WITHIN).unwrap_or_else(|e| match e {
            RecvTimeoutError::Timeout => panic!("chromium has not answered within {ANSWERS_WITHIN:?}"),
            RecvTimeoutError::Disconnected => panic!("chromium has ended"),
        });
        let (method, params) = (message["method"].as_str().unwrap_or_default(), &message["params"]);
        let complains = match method {
            "Runtime.exceptionThrown" => true,
            "Runtime.consoleAPICalled" => ["error", "warning", "assert"].iter().any(|kind| params["type"] == *kind),
            "Log.entryAdded" => params["entry"]["level"] == "error",
            _ => false,
        };
        if complains {
            self.complaints.push(message.to_string());
        }
        message
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // Its other processes write into the profile until they have ended too.
        let asked = self.ask.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        while asked.is_ok() && self.messages.recv_timeout(ENDS_WITHIN).is_ok() {}
        drop(self.browser.kill());
        drop(self.browser.wait());
    }
}
