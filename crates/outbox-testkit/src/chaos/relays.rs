//! Relay processes that can be killed, frozen and cut off, and whose every word is recorded.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use std::os::unix::process::ExitStatusExt;

use anyhow::{Context, Result, ensure};
use gamemesh_outbox::store::dead_letters::Action;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::history::collect::relay::{TARGET, log_line};
use crate::history::{Counters, Exit, Recorder, RelayEvent, RelayRecord, RelayRun, collect, wall_clock};
use crate::proxy::TcpProxy;

/// How long an answer of an endpoint may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One replica: a place in which one process after the other runs, behind its own proxies.
#[derive(Debug)]
pub struct Replica {
    name: String,
    program: PathBuf,
    environment: Vec<(String, String)>,
    log: PathBuf,
    recorder: Recorder,
    /// Between it and the database.
    pub to_database: TcpProxy,
    /// Between it and the bus.
    pub to_bus: TcpProxy,
    running: Mutex<Option<Running>>,
    /// How many processes were started. Their ids come back within a long run.
    starts: AtomicU32,
    memory: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    process: u32,
    run: RelayRun,
    /// Where it serves its endpoints, as soon as it does.
    address: watch::Receiver<Option<String>>,
    /// Ends when the process has said its last word.
    listening: JoinHandle<Result<()>>,
}

/// What is the same for every replica.
#[derive(Clone, Debug)]
pub struct Replicas<'a> {
    /// The program.
    pub program: &'a Path,
    /// Its settings, without those that say where database and bus are.
    pub environment: &'a [(String, String)],
    /// Where its log goes.
    pub folder: &'a Path,
    /// Who takes its history.
    pub recorder: &'a Recorder,
}

impl Replica {
    /// Prepares a replica called `name`; nothing runs yet. `connect` names its settings for the ports of its proxies to
    /// the database and to the bus.
    pub async fn prepare(
        name: &str,
        common: &Replicas<'_>,
        (database, bus): (u16, u16),
        connect: impl FnOnce(u16, u16) -> Vec<(String, String)>,
    ) -> Result<Self> {
        let (to_database, to_bus) = (TcpProxy::start(database).await?, TcpProxy::start(bus).await?);
        let fixed = [
            ("OTEL_SERVICE_NAME", name),
            ("HTTP_PORT", "0"),
            ("OUTBOX_HTTP_ADDRESS", "127.0.0.1"),
            ("OUTBOX_LOG_FORMAT", "json"),
        ];
        let mut environment = common.environment.to_vec();
        environment.extend(fixed.map(|(name, value)| (name.to_owned(), value.to_owned())));
        environment.push(("LOG_LEVEL".to_owned(), format!("info,{TARGET}=trace")));
        environment.extend(connect(to_database.port(), to_bus.port()));
        Ok(Self {
            name: name.to_owned(),
            program: common.program.to_owned(),
            environment,
            log: common.folder.join(format!("{name}.log")),
            recorder: common.recorder.clone(),
            to_database,
            to_bus,
            running: Mutex::default(),
            starts: AtomicU32::default(),
            memory: Arc::default(),
        })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the largest resident memory that any of its processes was seen to have, in bytes.
    pub fn memory_max(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }

    /// Starts a process, in addition to its settings with `extra`. There must be none.
    pub async fn start(&self, extra: &[(&str, &str)]) -> Result<RelayRun> {
        let mut running = self.running.lock().await;
        ensure!(running.is_none(), "{} runs already", self.name);
        let mut command = Command::new(&self.program);
        command.arg("run").env_clear().envs(self.environment.iter().cloned()).envs(extra.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let process = child.id().context("it has just been started")?;
        let run = RelayRun { name: self.name.clone(), run: self.starts.fetch_add(1, Ordering::Relaxed) + 1 };
        let (served, address) = watch::channel(None);
        let stderr = child.stderr.take().context("it was asked for")?;
        let log = File::options().create(true).append(true).open(&self.log).await?;
        let listening = tokio::spawn(listen(stderr, log, run.clone(), self.recorder.clone(), served));
        *running = Some(Running { child, process, run: run.clone(), address, listening });
        Ok(run)
    }

    /// Sends a signal to the process, if there is one.
    pub async fn signal(&self, signal: Signal) -> Result<Option<RelayRun>> {
        let running = self.running.lock().await;
        let Some(running) = &*running else { return Ok(None) };
        let id = Pid::from_raw(i32::try_from(running.process)?);
        kill(id, signal).with_context(|| format!("cannot send {signal} to {}", running.run))?;
        Ok(Some(running.run.clone()))
    }

    /// Waits until the process has ended, records how, and returns that. There must be one.
    pub async fn wait(&self) -> Result<(RelayRun, ExitStatus)> {
        let mut slot = self.running.lock().await;
        let mut running = slot.take().with_context(|| format!("{} does not run", self.name))?;
        let status = running.child.wait().await?;
        running.listening.await??;
        let exit = match status.signal() {
            Some(signal) => Exit::Signal(signal),
            None => Exit::Code(status.code().unwrap_or_default()),
        };
        self.recorder.relay(RelayRecord {
            at: wall_clock(),
            relay: running.run.clone(),
            event: RelayEvent::Exited(exit),
        });
        Ok((running.run, status))
    }

    /// Says whether a process is there.
    pub async fn is_running(&self) -> bool {
        self.running.lock().await.is_some()
    }

    /// Looks at how much memory the process uses.
    pub async fn weigh(&self) {
        let id = self.running.lock().await.as_ref().map(|running| running.process);
        let Some(id) = id else { return };
        // Gone by now, perhaps.
        let status = tokio::fs::read_to_string(format!("/proc/{id}/status")).await.unwrap_or_default();
        let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse().ok());
        let kib: u64 = kib.unwrap_or_default();
        self.memory.fetch_max(kib * 1024, Ordering::Relaxed);
    }

    /// Reads an endpoint of the process.
    pub async fn get(&self, path: &str) -> Result<String> {
        self.ask(&get(path)).await
    }

    /// Asks whether the process is ready; `None` if there is none, or it does not answer now.
    pub async fn readiness(&self) -> Option<(RelayRun, bool)> {
        let (run, address) = {
            let running = self.running.lock().await;
            let running = running.as_ref()?;
            (running.run.clone(), running.address.borrow().clone()?)
        };
        let answer = timeout(ANSWER_WITHIN, ask(&address, &get("/readyz"))).await.ok()?.ok()?;
        match answer.split(' ').nth(1)? {
            "200" => Some((run, true)),
            "503" => Some((run, false)),
            _ => None,
        }
    }

    /// Says whether the process has begun to work, or there is none.
    pub(super) async fn works(&self) -> bool {
        let address = match &*self.running.lock().await {
            Some(running) => running.address.borrow().clone(),
            None => return true,
        };
        let Some(address) = address else { return false };
        let answer = timeout(ANSWER_WITHIN, ask(&address, &get("/readyz"))).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.contains("\"running\"")))
    }

    /// Asks the process for a change of dead letters, as the page does, with the token `token`.
    pub async fn change(&self, action: Action, token: &str, request: &serde_json::Value) -> Result<String> {
        let (action, body) = (action.as_str(), request.to_string());
        let head = format!(
            "POST /api/v1/dead-letters/{action} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Authorization: Bearer {token}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.ask(&(head + &body)).await
    }

    /// Sends a request and returns the body of the answer, if that is 200.
    async fn ask(&self, request: &str) -> Result<String> {
        let mut address = {
            let running = self.running.lock().await;
            running.as_ref().with_context(|| format!("{} does not run", self.name))?.address.clone()
        };
        let address = address.wait_for(Option::is_some).await.context("it ended before it served anything")?.clone();
        let answer = ask(&address.context("waited for")?, request).await?;
        let (head, body) = answer.split_once("\r\n\r\n").context("expected a head and a body")?;
        ensure!(head.starts_with("HTTP/1.1 200"), "expected 200, got {head}: {body}");
        Ok(body.to_owned())
    }

    /// Reads the counters of the process, and its gauges of PENDING and FAILED rows.
    pub async fn counters(&self) -> Result<(Counters, (u64, u64))> {
        let run = {
            let running = self.running.lock().await;
            running.as_ref().with_context(|| format!("{} does not run", self.name))?.run.clone()
        };
        let metrics = self.get("/metrics").await?;
        Ok((collect::metrics::counters(run, &metrics)?, collect::metrics::gauges(&metrics)?))
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
}

async fn ask(address: &str, request: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// Records what a relay says until it says nothing more.
async fn listen(
    stderr: ChildStderr,
    mut log: File,
    relay: RelayRun,
    recorder: Recorder,
    served: watch::Sender<Option<String>>,
) -> Result<()> {
    let mut from = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        if from.read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        // A process that is killed may leave half a line, which says nothing.
        let Some(text) = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()) else {
            continue;
        };
        match log_line(text)? {
            Some((at, event)) => recorder.relay(RelayRecord { at, relay: relay.clone(), event }),
            None => {
                log.write_all(&line).await?;
                if text.contains("endpoints served") {
                    let said: serde_json::Value = serde_json::from_str(text)?;
                    served.send_replace(said["address"].as_str().map(str::to_owned));
                }
            }
        }
    }
}
