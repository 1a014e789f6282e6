use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;

use super::{NATS_PORT, Process, free_port, shared_port};
use crate::wait_until;

/// A NATS server with JetStream, version 2.12 or newer.
#[derive(Debug)]
pub struct NatsServer {
    port: u16,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    folder: TempDir,
    jetstream: JetStream,
    /// It says nothing before the client has begun to encrypt.
    tls_first: AtomicBool,
    process: Option<Process>,
}

/// Which JetStream a server has.
#[derive(Clone, Copy, Debug, Default)]
pub enum JetStream {
    /// One without a domain.
    #[default]
    Plain,
    /// One of this domain.
    Domain(&'static str),
    /// One that keeps at most this much in memory: `1MB`.
    Memory(&'static str),
    /// None: others may have one.
    None,
}

impl NatsServer {
    /// Starts a server of the caller's own.
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// Starts a server with more lines of configuration (accounts, limits, TLS).
    pub async fn start_with(configuration: &str) -> Result<Self> {
        Self::start_in(JetStream::Plain, configuration).await
    }

    /// Starts a server with another JetStream, or with none.
    pub async fn start_in(jetstream: JetStream, configuration: &str) -> Result<Self> {
        let mut server = Self::prepare_in(jetstream, configuration)?;
        server.restart().await?;
        Ok(server)
    }

    /// Starts as many servers as one bus, each with more lines of configuration.
    pub async fn cluster(size: u32, configuration: &str) -> Result<Vec<Self>> {
        if size == 1 {
            return Ok(vec![Self::start_with(configuration).await?]);
        }
        let routes: Vec<String> = (0..size).map(|_| format!("127.0.0.1:{}", free_port())).collect();
        let mut servers = Vec::new();
        for route in &routes {
            let all: Vec<String> = routes.iter().map(|route| format!("nats://{route}")).collect();
            let cluster = format!("cluster {{ name: outbox, listen: \"{route}\", routes: {all:?} }}");
            let server = Self::prepare(&format!("server_name: \"{route}\"\n{cluster}\n{configuration}"))?;
            servers.push(server);
        }
        try_join_all(servers.iter_mut().map(Self::restart)).await?;
        Ok(servers)
    }

    /// Chooses a port and writes the configuration, but starts nothing: for what happens before the server is there.
    pub fn prepare(configuration: &str) -> Result<Self> {
        Self::prepare_in(JetStream::Plain, configuration)
    }

    fn prepare_in(jetstream: JetStream, configuration: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("outbox-nats-")?;
        let own = Own { folder, jetstream, tls_first: false.into(), process: None };
        let server = Self { port: free_port(), own: Some(own) };
        server.configure(configuration)?;
        Ok(server)
    }

    /// Returns the server that the whole test run shares.
    pub fn shared() -> Self {
        let port = shared_port(NATS_PORT).expect("a shared NATS server");
        Self { port, own: None }
    }

    /// Writes another configuration; it holds from the next restart or SIGHUP on.
    pub fn configure(&self, configuration: &str) -> Result<()> {
        let own = self.own.as_ref().context("the shared server is not configured")?;
        let port = self.port;
        own.tls_first.store(configuration.contains("handshake_first"), Ordering::Relaxed);
        let store = own.folder.path().join("store");
        let jetstream = match own.jetstream {
            JetStream::Plain => format!("jetstream {{ store_dir: {store:?} }}"),
            JetStream::Domain(domain) => format!("jetstream {{ store_dir: {store:?}, domain: {domain} }}"),
            JetStream::Memory(most) => format!("jetstream {{ store_dir: {store:?}, max_mem: {most} }}"),
            JetStream::None => String::new(),
        };
        let text = format!("listen: \"127.0.0.1:{port}\"\n{jetstream}\n{configuration}\n");
        Ok(std::fs::write(own.folder.path().join("nats.conf"), text)?)
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its URL, as in `NATS_URL`.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let port = self.port;
        let own = self.own.as_mut().context("the shared server is not restarted")?;
        let mut command = Command::new("nats-server");
        command.arg("-c").arg(own.folder.path().join("nats.conf"));
        let process = own.process.insert(Process::spawn("nats-server", &mut command, own.folder.path())?);
        wait_until("NATS greets its clients", async || {
            process.check_running().expect("NATS runs");
            greets(port, own.tls_first.load(Ordering::Relaxed)).await.ok()
        })
        .await;
        Ok(())
    }

    /// Kills it; [`restart`](Self::restart) brings it back.
    pub fn kill(&mut self) {
        if let Some(own) = &mut self.own {
            own.process = None;
        }
    }

    /// Returns the folder of what it has stored.
    pub fn store(&self) -> PathBuf {
        self.own.as_ref().expect("a server of the test's own").folder.path().join("store")
    }

    /// Returns its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        self.own.as_mut().and_then(|own| own.process.as_mut()).expect("a server of the test's own, and running")
    }
}

async fn greets(port: u16, tls_first: bool) -> Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    if tls_first {
        return Ok(());
    }
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).await?;
    anyhow::ensure!(line.starts_with("INFO "), "expected INFO, got {line:?}");
    Ok(())
}
