//! The built program, without the environment of whoever runs the tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Only waited out in a failing test.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Writes what a run printed and returned as one text, for a snapshot.
pub(crate) fn transcript(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().map_or("none".to_owned(), |code| code.to_string());
    format!("exit code: {code}\nstdout:\n{}stderr:\n{}", text(&output.stdout), text(&output.stderr))
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
        let log = lines(child.stderr.take().unwrap());
        let stdout = lines(child.stdout.take().unwrap());
        let mut relay = Self { child, address: ([127, 0, 0, 1], 0).into(), log, stdout };
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
        wait_for(&self.log, text)
    }

    /// Waits for a line of standard output that contains `text`.
    pub(crate) fn wait_for_stdout(&self, text: &str) -> String {
        wait_for(&self.stdout, text)
    }

    /// Returns the status line and head, and the body, of an endpoint.
    pub(crate) fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.to_owned(), body.to_owned())
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

fn lines(pipe: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        BufReader::new(pipe).lines().map_while(Result::ok).try_for_each(|line| sender.send(line).map_err(drop))
    });
    receiver
}

fn wait_for(lines: &Receiver<String>, text: &str) -> String {
    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) if line.contains(text) => return line,
            Ok(line) => seen.push(line),
            Err(error) => panic!("expected a line with {text:?} ({error}), got:\n{}", seen.join("\n")),
        }
    }
}
