//! Relays as processes of their own, so that what they use is theirs alone.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::try_join_all;
use hyper::Uri;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outbox_relay::{CommandError, http_get};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::processes;
use crate::stage::{REPLACED, Stage};

/// How long a relay may take to serve its endpoints, and again to be ready.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How often to ask whether it is ready: what is measured takes tens of milliseconds.
const READY_INTERVAL: Duration = Duration::from_millis(2);
/// How long it may take to stop, beyond its own limit.
const STOP_WITHIN: Duration = Duration::from_secs(60);
/// Complaints that are kept for an error.
const COMPLAINTS: usize = 3;

/// Relays at work; killed when dropped.
pub(crate) struct Relays(Vec<Relay>);

struct Relay {
    child: Child,
    pid: i32,
    endpoints: Uri,
    /// How long it took to be ready.
    ready: AbortOnDropHandle<Duration>,
    complaints: Arc<Mutex<VecDeque<String>>>,
}

impl Relays {
    /// Starts as many relays with the environment of this process and the stage's settings over it.
    pub(crate) async fn start(count: u32, stage: &Stage) -> Result<Self, CommandError> {
        let program = program(stage)?;
        let relays = (0..count).map(|number| Relay::start(&program, stage.relay_settings(number)));
        try_join_all(relays).await.map(Self)
    }

    /// Returns how long the slowest of them took from its start to its first answer that it is ready. Asked once.
    pub(crate) async fn start_to_ready(&mut self) -> Result<Duration, CommandError> {
        let mut slowest = Duration::ZERO;
        for relay in &mut self.0 {
            let ready = timeout(START_WITHIN, &mut relay.ready).await;
            let Ok(Ok(ready)) = ready else {
                return Err(CommandError::failure("a relay was never ready", said(&relay.complaints)));
            };
            slowest = slowest.max(ready);
        }
        Ok(slowest)
    }

    /// Returns the CPU time of all of them so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        self.0.iter().map(|relay| processes::cpu_seconds(relay.pid)).sum()
    }

    /// Returns the most memory that any of them has had, in bytes.
    pub(crate) fn peak_rss_bytes(&self) -> Option<u64> {
        self.0.iter().filter_map(|relay| processes::peak_rss_bytes(relay.pid)).max()
    }

    /// Returns how many events they have recorded as published.
    pub(crate) async fn published(&self) -> Result<u64, CommandError> {
        self.counter("gamemesh_outbox_events_published_total", "").await
    }

    /// Returns how many events they have sent again and the bus has recognised.
    pub(crate) async fn dropped_by_the_bus(&self) -> Result<u64, CommandError> {
        self.counter("gamemesh_outbox_publish_attempts_total", "outcome=\"duplicate\"").await
    }

    /// Adds up a counter of all of them, of those samples whose labels hold `label`.
    async fn counter(&self, name: &str, label: &str) -> Result<u64, CommandError> {
        let pages = try_join_all(self.0.iter().map(|relay| http_get("the relay", &relay.endpoints, "/metrics"))).await;
        let pages = pages.map_err(|error| CommandError::failure("cannot read a relay's counters", error))?;
        Ok(pages.iter().flat_map(|page| page.lines()).filter_map(|line| sample(line, name, label)).sum())
    }

    /// Fails if one of them has ended.
    pub(crate) fn check(&mut self) -> Result<(), CommandError> {
        for relay in &mut self.0 {
            let ended = relay.child.try_wait();
            if let Some(status) = ended.map_err(|error| CommandError::failure("cannot watch a relay", error))? {
                let problem = format!("{status}; it said: {}", said(&relay.complaints));
                return Err(CommandError::failure("a relay has ended", problem));
            }
        }
        Ok(())
    }

    /// Returns the last complaints of all of them.
    pub(crate) fn said(&self) -> String {
        self.0.iter().map(|relay| said(&relay.complaints)).collect::<Vec<_>>().join("; ")
    }

    /// Stops them as an operator would, and waits until they have finished what they held.
    pub(crate) async fn stop(mut self) -> Result<(), CommandError> {
        for relay in &self.0 {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(relay.pid), Signal::SIGTERM);
        }
        for relay in &mut self.0 {
            let ended = timeout(STOP_WITHIN, relay.child.wait()).await;
            if !matches!(&ended, Ok(Ok(status)) if status.success()) {
                return Err(CommandError::failure("a relay did not stop cleanly", said(&relay.complaints)));
            }
        }
        Ok(())
    }
}

impl Relay {
    async fn start(program: &Path, settings: Vec<(&'static str, String)>) -> Result<Self, CommandError> {
        let cannot = |error| CommandError::failure(format!("cannot start {}", program.display()), error);
        let mut command = Command::new(program);
        command.arg("run").envs(settings);
        // What the settings replace must not be given twice.
        for replaced in REPLACED {
            command.env_remove(replaced);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let started = Instant::now();
        let mut child = command.spawn().map_err(cannot)?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).expect("it runs, and process ids are small");
        let mut lines = BufReader::new(child.stderr.take().expect("it was asked for")).lines();
        let complaints = Arc::new(Mutex::new(VecDeque::new()));
        let address = timeout(START_WITHIN, endpoints(&mut lines, &complaints)).await.ok().flatten();
        let Some(endpoints) = address else {
            return Err(CommandError::failure("a relay did not start", said(&complaints)));
        };
        tokio::spawn(listen(lines, complaints.clone()));
        let ready = AbortOnDropHandle::new(tokio::spawn(ready(endpoints.clone(), started)));
        Ok(Self { child, pid, endpoints, ready, complaints })
    }
}

/// Finds the relay to measure: the one that was named, or the one beside this program.
fn program(stage: &Stage) -> Result<PathBuf, CommandError> {
    if let Some(named) = stage.program() {
        return Ok(named.clone());
    }
    let own = std::env::current_exe().map_err(|error| CommandError::failure("cannot find the relay", error))?;
    let beside = own.with_file_name("outbox-relay");
    if beside.exists() {
        return Ok(beside);
    }
    Err(CommandError::failure("cannot find the relay", format!("there is no {}", beside.display()))
        .hint("`cargo build --release` builds it; `--relay PROGRAM` names another one"))
}

/// Reads the log until it says where the endpoints are.
async fn endpoints(lines: &mut Lines<BufReader<ChildStderr>>, complaints: &Mutex<VecDeque<String>>) -> Option<Uri> {
    while let Ok(Some(line)) = lines.next_line().await {
        note(&line, complaints);
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        if line["msg"] == "endpoints served" {
            return format!("http://{}", line["address"].as_str()?).parse().ok();
        }
    }
    None
}

/// Asks until the relay says that it is ready.
async fn ready(endpoints: Uri, started: Instant) -> Duration {
    while http_get("the relay", &endpoints, "/readyz").await.is_err() {
        tokio::time::sleep(READY_INTERVAL).await;
    }
    started.elapsed()
}

/// Reads on, so that the relay never waits for somebody to read its log.
async fn listen(mut lines: Lines<BufReader<ChildStderr>>, complaints: Arc<Mutex<VecDeque<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        note(&line, &complaints);
    }
}

fn note(line: &str, complaints: &Mutex<VecDeque<String>>) {
    let harmless = serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"] == "info");
    if harmless {
        return;
    }
    let mut complaints = complaints.lock().expect("nobody panics while it holds the lock");
    if complaints.len() == COMPLAINTS {
        complaints.pop_front();
    }
    complaints.push_back(line.to_owned());
}

fn said(complaints: &Mutex<VecDeque<String>>) -> String {
    let complaints = complaints.lock().expect("nobody panics while it holds the lock");
    if complaints.is_empty() {
        return "nothing".to_owned();
    }
    complaints.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
}

/// Reads one line of `/metrics`, if it is a sample of the counter `name` whose labels hold `label`.
fn sample(line: &str, name: &str, label: &str) -> Option<u64> {
    let (series, value) = line.rsplit_once(' ')?;
    let labels = series.strip_prefix(name)?;
    ((labels.is_empty() || labels.starts_with('{')) && labels.contains(label)).then(|| value.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_samples_of_the_counter_itself_count() {
        let line = "published_total{service=\"a\",outcome=\"acked\"} 12";
        assert_eq!(sample(line, "published_total", "outcome=\"acked\""), Some(12));
        assert_eq!(sample(line, "published_total", "outcome=\"duplicate\""), None);
        assert_eq!(sample(line, "published", ""), None);
        assert_eq!(sample("# TYPE published_total counter", "published_total", ""), None);
    }
}
