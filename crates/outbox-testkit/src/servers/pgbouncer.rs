use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use nix::unistd::Uid;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::postgres::NOBODY;
use super::{PostgresServer, Process, free_port};
use crate::wait_until;

/// Where Debian installs it, outside of an ordinary user's PATH.
const DEBIAN_PROGRAM: &str = "/usr/sbin/pgbouncer";

/// PgBouncer in front of a PostgreSQL server, in transaction mode: consecutive transactions of a client run on whatever
/// connection is free, so neither prepared statements nor session settings survive. It lets everybody in as `postgres`.
#[derive(Debug)]
pub struct PgBouncer {
    port: u16,
    // Ended before its folder goes.
    process: Process,
    folder: TempDir,
}

impl PgBouncer {
    /// Starts it.
    pub async fn start(server: &PostgresServer) -> Result<Self> {
        Self::start_with(server, "").await
    }

    /// Starts it with more lines of `pgbouncer.ini`.
    pub async fn start_with(server: &PostgresServer, more: &str) -> Result<Self> {
        let folder = TempDir::with_prefix("outbox-pgbouncer-")?;
        let port = free_port();
        let settings = folder.path().join("pgbouncer.ini");
        std::fs::write(
            &settings,
            format!(
                "[databases]\n* = host=127.0.0.1 port={} user=postgres\n\
                 [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
                 auth_type = any\npool_mode = transaction\ndefault_pool_size = 10\nmax_client_conn = 200\n{more}",
                server.port()
            ),
        )?;
        if Uid::effective().is_root() {
            // It refuses to run as root.
            chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let process = run(folder.path(), port).await?;
        Ok(Self { port, process, folder })
    }

    /// Kills it and starts it again on the same port.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.process = run(self.folder.path(), self.port).await?;
        Ok(())
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }
}

async fn run(folder: &Path, port: u16) -> Result<Process> {
    let program = if Path::new(DEBIAN_PROGRAM).exists() { DEBIAN_PROGRAM } else { "pgbouncer" };
    let mut command = Command::new(program);
    command.arg(folder.join("pgbouncer.ini")).current_dir(folder);
    if Uid::effective().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let mut process = Process::spawn("pgbouncer", &mut command, folder)?;
    let dsn = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    wait_until("PgBouncer accepts connections", async || {
        process.check_running().expect("PgBouncer runs");
        tokio_postgres::connect(&dsn, NoTls).await.is_ok().then_some(())
    })
    .await;
    Ok(process)
}
