use std::process::Command;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Process, REDIS_PORT, free_port, shared_port};
use crate::wait_until;

/// A Redis server that keeps an append-only file.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts a server of the caller's own.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments: `["--maxmemory", "2mb"]`.
    pub async fn start_with(arguments: &[&str]) -> Result<Self> {
        let mut server = Self::prepare(arguments)?;
        server.restart().await?;
        Ok(server)
    }

    /// Chooses a port, but starts nothing: for what happens before the server is there.
    pub fn prepare(arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let own = Own { folder: TempDir::with_prefix("outbox-redis-")?, arguments, process: None };
        Ok(Self { port: free_port(), own: Some(own) })
    }

    /// Returns the server that the whole test run shares.
    pub fn shared() -> Self {
        let port = shared_port(REDIS_PORT).expect("a shared Redis server");
        Self { port, own: None }
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its URL, as in `REDIS_URL`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let client = redis::Client::open(self.url())?;
        let port = self.port.to_string();
        let own = self.own.as_mut().context("the shared server is not restarted")?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--dir"]);
        command.arg(own.folder.path()).args(&own.arguments);
        let process = own.process.insert(Process::spawn("redis-server", &mut command, own.folder.path())?);
        wait_until("Redis answers", async || {
            process.check_running().expect("Redis runs");
            let mut connection = client.get_multiplexed_async_connection().await.ok()?;
            // LOADING, while it reads its file, is an error; a server that wants a password is up.
            match redis::cmd("PING").query_async::<()>(&mut connection).await {
                Ok(()) => Some(()),
                Err(error) => (error.code() == Some("NOAUTH")).then_some(()),
            }
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

    /// Returns its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        self.own.as_mut().and_then(|own| own.process.as_mut()).expect("a server of the test's own, and running")
    }
}
