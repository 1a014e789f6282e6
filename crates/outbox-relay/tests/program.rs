//! The built program, without the environment of whoever runs the tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
pub(crate) use outbox_testkit::transcript;

/// Only waited out in a failing test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a command with nothing set but `environment`.
pub(crate) fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
    command.env_clear().args(arguments).envs(environment.iter().copied());
    command
}

/// Runs the program to its end.
pub(crate) fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    command(arguments, environment).stdin(Stdio::null()).output().expect("the program starts")
}

/// Runs the program with `input` on standard input.
pub(crate) fn run_with_input(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut command = command(arguments, environment);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Returns the `sqlite://` URL of a database in `folder`.
pub(crate) fn sqlite(folder: &Path) -> String {
    format!("sqlite://{}", folder.join("outbox.db").display())
}

/// A running relay; killed when dropped.
pub(crate) struct Relay {
    child: Child,
    address: SocketAddr,
    log: Receiver<String>,
    stdout: Receiver<String>,
    logged: Arc<Mutex<String>>,
}

impl Relay {
    /// Starts a relay on a free port and waits until it serves its endpoints.
    pub(crate) fn start(environment: &[(&str, &str)]) -> Self {
        Self::start_command(command(&["run"], environment))
    }

    /// Starts a relay by a command that becomes one, and has its settings.
    pub(crate) fn start_command(mut command: Command) -> Self {
        for (name, value) in [("HTTP_PORT", "0"), ("OUTBOX_HTTP_ADDRESS", "127.0.0.1"), ("OUTBOX_LOG_FORMAT", "json")] {
            if !command.get_envs().any(|(set, _)| set == name) {
                command.env(name, value);
            }
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let logged = Arc::new(Mutex::new(String::new()));
        let log = lines(child.stderr.take().unwrap(), logged.clone());
        let stdout = lines(child.stdout.take().unwrap(), logged.clone());
        let mut relay = Self { child, address: ([127, 0, 0, 1], 0).into(), log, stdout, logged };
        let served = relay.wait_for_log("endpoints served");
        let served: serde_json::Value = serde_json::from_str(&served).unwrap();
        relay.address = served["address"].as_str().unwrap().parse().unwrap();
        relay
    }

    /// Returns where it serves its endpoints.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a line of the log that contains `text`.
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        wait_for(&self.log, text, &self.logged)
    }

    /// Waits for a line of standard output that contains `text`.
    pub(crate) fn wait_for_stdout(&self, text: &str) -> String {
        wait_for(&self.stdout, text, &self.logged)
    }

    /// Says whether it has printed `text` by now.
    pub(crate) fn has_printed(&self, text: &str) -> bool {
        self.logged.lock().unwrap().contains(text)
    }

    /// Returns everything that it has printed, once it has ended.
    pub(crate) fn everything_printed(&self) -> String {
        // Both are closed when the last line is in.
        let _ = (self.log.iter().count(), self.stdout.iter().count());
        self.logged.lock().unwrap().clone()
    }

    /// Returns the status line and head, and the body, of an endpoint.
    pub(crate) fn get(&self, path: &str) -> (String, String) {
        let answer = exchange(self.address, "GET", path, &[("Host", "localhost")], "");
        (answer.head, answer.body)
    }

    /// Returns its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the end and returns the exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a server answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }
}

/// Sends one request, with exactly these headers, and reads the answer.
pub(crate) fn exchange(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(stream, "{request}\r\n{body}").unwrap();
    // Up to the length that the head names: not every server closes because it was asked to.
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "expected a whole head, got: {head}");
    }
    let head = head.trim_end();
    let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok();
    let mut body = Vec::new();
    stream.take(head.lines().find_map(length).unwrap_or(u64::MAX)).read_to_end(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body }
}

fn lines(pipe: impl Read + Send + 'static, logged: Arc<Mutex<String>>) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| {
            logged.lock().unwrap().push_str(&format!("{line}\n"));
            sender.send(line).map_err(drop)
        })
    });
    receiver
}

fn wait_for(lines: &Receiver<String>, text: &str, logged: &Mutex<String>) -> String {
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(text) => return line,
            Ok(_) => {}
            Err(error) => panic!("expected a line with {text:?} ({error}), got:\n{}", logged.lock().unwrap()),
        }
    }
}
