use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use tempfile::TempDir;
use tokio_postgres::NoTls;

use super::{POSTGRES_PORT, Process, free_port, shared_port};
use crate::authority::Certificate;
use crate::wait_until;

/// PostgreSQL refuses to run as root; then it runs as `nobody`.
pub(super) const NOBODY: u32 = 65534;

/// A PostgreSQL server. Its superuser is `postgres`, without a password.
#[derive(Debug)]
pub struct PostgresServer {
    port: u16,
    own: Option<Own>,
}

#[derive(Debug)]
struct Own {
    folder: TempDir,
    settings: Vec<(String, String)>,
    process: Option<Process>,
}

/// A database of its own for one test.
#[derive(Clone, Debug)]
pub struct TestDatabase {
    port: u16,
    name: String,
}

impl PostgresServer {
    /// Starts a server of the caller's own.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with some settings of `postgresql.conf`.
    pub async fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        Self::start_in(&std::env::temp_dir(), settings).await
    }

    /// Starts a server with some settings of `postgresql.conf` that keeps its data in a folder of its own in `parent`.
    pub async fn start_in(parent: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let mut server = Self::prepare(parent, settings)?;
        server.restart().await?;
        Ok(server)
    }

    /// Starts a server that encrypts for whoever asks, and shows `certificate`.
    pub async fn start_with_tls(certificate: &Certificate) -> Result<Self> {
        let mut server = Self::prepare(&std::env::temp_dir(), &[("ssl", "on")])?;
        let data = server.own.as_ref().context("it is not shared")?.folder.path().join("data");
        for (file, name) in [(&certificate.cert, "server.crt"), (&certificate.key, "server.key")] {
            let copy = data.join(name);
            std::fs::copy(file, &copy)?;
            if Uid::effective().is_root() {
                chown(&copy, Some(NOBODY), Some(NOBODY))?;
            }
        }
        server.restart().await?;
        Ok(server)
    }

    fn prepare(parent: &Path, settings: &[(&str, &str)]) -> Result<Self> {
        let folder = TempDir::with_prefix_in("outbox-postgres-", parent)?;
        if Uid::effective().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let data = folder.path().join("data");
        let output = server_command("initdb")?
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
            .arg(&data)
            .current_dir(folder.path())
            .output()
            .context("cannot run initdb")?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));

        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Ok(Self { port: free_port(), own: Some(Own { folder, settings, process: None }) })
    }

    /// Starts a standby of this server, and has every commit here wait for it from now on.
    pub async fn standby(&self) -> Result<Self> {
        let folder = TempDir::with_prefix("outbox-standby-")?;
        if Uid::effective().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY))?;
        }
        let output = server_command("pg_basebackup")?
            .args(["--host=127.0.0.1", "--username=postgres", "--write-recovery-conf", "--checkpoint=fast"])
            .args(["--wal-method=stream", &format!("--port={}", self.port), "--pgdata"])
            .arg(folder.path().join("data"))
            .current_dir(folder.path())
            .output()
            .context("cannot run pg_basebackup")?;
        ensure!(output.status.success(), "pg_basebackup: {}", String::from_utf8_lossy(&output.stderr));
        let own = Own { folder, settings: Vec::new(), process: None };
        let mut standby = Self { port: free_port(), own: Some(own) };
        standby.restart().await?;
        let sql = TestDatabase { port: self.port, name: "postgres".into() }.client().await;
        sql.batch_execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
        sql.batch_execute("SELECT pg_reload_conf()").await?;
        let follows = "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'";
        wait_until("the standby follows", async || sql.query_opt(follows, &[]).await.expect("asked")).await;
        Ok(standby)
    }

    /// Crashes it, and starts it again as a standby that follows nobody.
    pub async fn demote(&mut self) -> Result<()> {
        self.kill();
        let own = self.own.as_ref().context("it is not shared")?;
        let signal = own.folder.path().join("data/standby.signal");
        std::fs::write(&signal, "")?;
        if Uid::effective().is_root() {
            chown(&signal, Some(NOBODY), Some(NOBODY))?;
        }
        self.restart().await
    }

    /// Makes a standby the primary.
    pub async fn promote(&self) -> Result<()> {
        let sql = TestDatabase { port: self.port, name: "postgres".into() }.client().await;
        let promoted: bool = sql.query_one("SELECT pg_promote()", &[]).await?.get(0);
        ensure!(promoted, "expected a new primary");
        Ok(())
    }

    /// Returns a database of the same name on another server: what a standby has of it.
    pub fn same_database(&self, database: &TestDatabase) -> TestDatabase {
        TestDatabase { port: self.port, name: database.name.clone() }
    }

    /// Returns the server that the whole test run shares.
    pub fn shared() -> Self {
        let port = shared_port(POSTGRES_PORT).expect("a shared PostgreSQL server");
        Self { port, own: None }
    }

    /// Returns its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Creates an empty database.
    pub async fn database(&self) -> TestDatabase {
        self.create_database("").await
    }

    /// Creates an empty database of another encoding: `LATIN1`.
    pub async fn database_in(&self, encoding: &str) -> TestDatabase {
        self.create_database(&format!("TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")).await
    }

    async fn create_database(&self, options: &str) -> TestDatabase {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let maintenance = TestDatabase { port: self.port, name: "postgres".into() };
        let client = maintenance.client().await;
        client.batch_execute(&format!("CREATE DATABASE {name} {options}")).await.expect("a new database");
        TestDatabase { port: self.port, name }
    }

    /// Starts it again on the same port and data.
    pub async fn restart(&mut self) -> Result<()> {
        self.kill();
        let own = self.own.as_mut().context("the shared server is not restarted")?;
        let mut command = server_command("postgres")?;
        command.arg("-D").arg(own.folder.path().join("data")).args(["-p", &self.port.to_string()]);
        command.current_dir(own.folder.path());
        let socket_folder = own.folder.path().to_string_lossy().into_owned();
        let defaults = [
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &socket_folder),
            ("max_connections", "200"),
            ("wal_level", "logical"),
            // What is killed in a test is a process, never the machine.
            ("fsync", "off"),
            ("log_min_messages", "warning"),
        ];
        let chosen = own.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in defaults.into_iter().chain(chosen) {
            command.args(["-c", &format!("{name}={value}")]);
        }
        own.process = Some(Process::spawn("postgres", &mut command, own.folder.path())?);

        let maintenance = TestDatabase { port: self.port, name: "postgres".into() };
        wait_until("PostgreSQL accepts connections", async || {
            self.process().check_running().expect("PostgreSQL runs");
            maintenance.try_client().await.ok()
        })
        .await;
        Ok(())
    }

    /// Stops it as a crash would (SIGQUIT: immediate shutdown); [`restart`](Self::restart) brings it back.
    pub fn crash(&mut self) -> Result<()> {
        let mut process = self.own.as_mut().and_then(|own| own.process.take()).context("it runs, and is not shared")?;
        process.signal(Signal::SIGQUIT)?;
        process.wait()?;
        Ok(())
    }

    /// Returns its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        self.own.as_mut().and_then(|own| own.process.as_mut()).expect("a server of the test's own, and running")
    }

    fn kill(&mut self) {
        if self.own.as_ref().is_some_and(|own| own.process.is_some()) {
            // Killing the postmaster alone would leave its children on the data for a while.
            self.crash().expect("it ends");
        }
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl TestDatabase {
    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its URL, as in `DATABASE_URL`.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{}", self.port, self.name)
    }

    /// Returns its libpq keywords, as in `POSTGRES_DSN`.
    pub fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname={} sslmode=disable", self.port, self.name)
    }

    /// Returns its libpq keywords for a way that leads through a proxy on `port`.
    pub fn dsn_through(&self, port: u16) -> String {
        Self { port, name: self.name.clone() }.dsn()
    }

    /// Connects to it.
    pub async fn client(&self) -> tokio_postgres::Client {
        self.try_client().await.expect("a connection to the test's database")
    }

    /// Connects to it, if it is there.
    pub async fn try_client(&self) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.dsn(), NoTls).await?;
        // Ends with the client or the server; queries report why.
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Returns a command of the server's own, which Debian keeps out of PATH, to be run by a user that it accepts.
fn server_command(name: &str) -> Result<Command> {
    let mut command = Command::new(server_program(name)?);
    if Uid::effective().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    Ok(command)
}

fn server_program(name: &str) -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("OUTBOX_TEST_POSTGRES_BIN") {
        return Ok(Path::new(&folder).join(name));
    }
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten() {
        let entry = entry?;
        let program = entry.path().join("bin").join(name);
        let version = entry.file_name().to_string_lossy().parse();
        if let (Ok(version), true) = (version, program.exists()) {
            found.push((version, program));
        }
    }
    match found.into_iter().max() {
        Some((_, program)) => Ok(program),
        None => bail!("no {name} below /usr/lib/postgresql: scripts/test installs what is missing"),
    }
}
