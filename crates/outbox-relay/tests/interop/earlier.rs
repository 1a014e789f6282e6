//! The earlier system's programs, for which `interop/` stands.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::documents::root;
use crate::probe::{Settings, environment};
use crate::program::{PATIENCE, Relay};

/// What a producer says of an event that it has inserted.
#[derive(Debug, Deserialize)]
pub(super) struct Inserted {
    pub id: String,
    pub trace_id: String,
}

/// What a producer says at its end.
#[derive(Debug, Deserialize)]
pub(super) struct Produced {
    pub inserted: i64,
    pub failed: i64,
    /// How long its longest transaction took.
    pub longest_ms: u64,
}

/// What a consumer says of a message.
#[derive(Debug, Deserialize)]
pub(super) struct Seen {
    pub subject: String,
    pub id: String,
    #[serde(rename = "type")]
    pub event_type: String,
    pub carrier: Option<Map<String, Value>>,
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: String,
    pub headers: Option<Map<String, Value>>,
    pub deliveries: u64,
    /// The payload, read as the earlier system's handlers read it.
    pub player: Option<Value>,
    #[serde(default)]
    pub error: String,
}

/// Returns the command of one of the programs, with nothing set but these.
fn command(arguments: &[&str], settings: &Settings) -> Command {
    let mut command = Command::new(program());
    command.env_clear().args(arguments).envs(environment(settings)).stdin(Stdio::null());
    command
}

/// Returns where the programs are.
pub(super) fn program() -> PathBuf {
    let path = root().join("target/test-tools/earlier");
    assert!(path.exists(), "{} is missing: scripts/test builds it from interop/", path.display());
    path
}

/// Starts the earlier relay and waits until it works. It has endpoints and a log as ours has, and is handled alike.
pub(super) fn relay(settings: &Settings) -> Relay {
    let relay = Relay::start_command(command(&["relay"], settings));
    relay.wait_for_log("relay running");
    relay
}

/// Runs the player service's auto-migration.
pub(super) fn auto_migrate(settings: &Settings) {
    let output = command(&["migrate"], settings).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A producer or a consumer at work; killed when dropped.
pub(super) struct Worker {
    child: Child,
    lines: Receiver<String>,
}

impl Worker {
    pub(super) fn start(arguments: &[&str], settings: &Settings) -> Self {
        let mut child = command(arguments, settings).stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line).map_err(drop))
        });
        Self { child, lines }
    }

    /// Returns the next line that it prints.
    pub(super) fn next<T: DeserializeOwned>(&self) -> T {
        let line = self.lines.recv_timeout(PATIENCE).expect("it prints another line");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// Asks it to end, and returns the last line that it prints.
    pub(super) fn stop<T: DeserializeOwned>(mut self) -> T {
        self.signal(Signal::SIGTERM);
        self.end()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end, and returns the last line that it prints.
    pub(super) fn end<T: DeserializeOwned>(&mut self) -> T {
        let last = self.wait().expect("a last line");
        serde_json::from_str(&last).unwrap_or_else(|error| panic!("{error}: {last}"))
    }

    /// Waits for its end, and returns the last line that it prints, if there is one.
    fn wait(&mut self) -> Option<String> {
        let mut last = None;
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            last = Some(line);
        }
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {last:?}");
        last
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Inserts events by the earlier system's producer, and returns what it says of each.
pub(super) fn produce(count: usize, more: &[&str], settings: &Settings) -> Vec<Inserted> {
    let number = count.to_string();
    let arguments: Vec<&str> = ["produce", "--count", &number].iter().chain(more).copied().collect();
    let mut producer = Worker::start(&arguments, settings);
    let inserted = (0..count).map(|_| producer.next()).collect();
    let produced: Produced = producer.end();
    assert_eq!((produced.inserted, produced.failed), (i64::try_from(count).unwrap(), 0));
    inserted
}

/// Takes messages by the earlier system's consumer until there are this many.
pub(super) fn consume(count: usize, more: &[&str], settings: &Settings) -> Vec<Seen> {
    let arguments: Vec<&str> = ["consume"].iter().chain(more).copied().collect();
    let mut consumer = Worker::start(&arguments, settings);
    let seen = (0..count).map(|_| consumer.next()).collect();
    consumer.signal(Signal::SIGTERM);
    consumer.wait();
    seen
}
