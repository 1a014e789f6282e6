//! A log that nobody reads costs lines of the log and nothing else.

use std::io::{BufRead, BufReader, PipeReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outbox_testkit::servers::free_port;
use outbox_testkit::wait_until;
use sqlx::{Connection, SqliteConnection};
use tempfile::TempDir;

use crate::program::{command, exchange, run, sqlite};

/// What a pipe holds on Linux.
const PIPE_BYTES: usize = 65_536;

/// A relay whose events all fail, and which says so on a pipe.
struct Talkative {
    child: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Talkative {
    async fn start() -> (Self, PipeReader) {
        let (reader, mut writer) = std::io::pipe().unwrap();
        // As much as fits: the first line that the relay writes is stuck.
        writer.write_all(&[b'\n'; PIPE_BYTES]).unwrap();
        let quick = ["OUTBOX_POLL_INTERVAL", "OUTBOX_RETRY_BACKOFF", "OUTBOX_RETRY_BACKOFF_MAX"];
        let relay = Self::spawn(&quick.map(|name| (name, "10ms")), Stdio::null(), writer);
        relay.insert("bad topic", 300).await;
        (relay, reader)
    }

    /// Starts it on a database of its own, with the bus on its output.
    fn spawn(settings: &[(&str, &str)], output: impl Into<Stdio>, log: impl Into<Stdio>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (url, port) = (sqlite(folder.path()), free_port());
        assert!(run(&["migrate", "up"], &[("DATABASE_URL", &url)]).status.success());
        let mut command = command(&["run"], &[]);
        command.envs([("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout"), ("HTTP_PORT", &port.to_string())]);
        command.env("OUTBOX_HTTP_ADDRESS", "127.0.0.1").envs(settings.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().unwrap();
        Self { child, address: ([127, 0, 0, 1], port).into(), folder }
    }

    async fn sql(&self) -> SqliteConnection {
        SqliteConnection::connect(&sqlite(self.folder.path())).await.unwrap()
    }

    async fn insert(&self, topic: &str, count: u32) {
        let insert = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
                      INSERT INTO outbox_events (id, event_type, topic, payload)
                      SELECT lower(printf('%s-%s-7%s-8%s-%s', hex(randomblob(4)), hex(randomblob(2)),
                                          substr(hex(randomblob(2)), 2), substr(hex(randomblob(2)), 2), hex(randomblob(6)))),
                             'registered', ?1, '{}' FROM n";
        sqlx::query(insert).bind(topic).bind(count).execute(&mut self.sql().await).await.unwrap();
    }

    fn get(&self, path: &str) -> String {
        let answer = exchange(self.address, "GET", path, &[("Host", "localhost")], "");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.body
    }

    async fn wait_until_lines_are_lost(&self) {
        wait_until("lines of the log are lost", async || {
            // Not serving yet.
            std::net::TcpStream::connect(self.address).ok()?;
            let metrics = self.get("/metrics");
            let lost = metrics.lines().find(|line| line.starts_with("gamemesh_outbox_log_lines_lost_total"))?;
            (!lost.ends_with(" 0")).then_some(())
        })
        .await;
    }

    /// Publishes one more event and says how long that took.
    async fn publishes(&self) {
        self.insert("events.player", 1).await;
        let mut sql = self.sql().await;
        let published = "SELECT count(*) FROM outbox_events WHERE topic = 'events.player' AND status <> 'PUBLISHED'";
        wait_until("a good event is published", async || {
            let waiting: i64 = sqlx::query_scalar(published).fetch_one(&mut sql).await.unwrap();
            (waiting == 0).then_some(())
        })
        .await;
    }

    /// Stops it cleanly and returns how long that took.
    fn stop(mut self) -> Duration {
        let asked = Instant::now();
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        asked.elapsed()
    }
}

impl Drop for Talkative {
    fn drop(&mut self) {
        // It has ended already, where all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_log_that_nobody_reads_keeps_nothing_waiting() {
    let (relay, unread) = Talkative::start().await;
    relay.publishes().await;
    let asked = Instant::now();
    relay.get("/healthz");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let took = relay.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(unread);
}

#[tokio::test]
async fn a_log_that_is_read_again_has_what_waited_and_says_what_it_lacks() {
    let (relay, log) = Talkative::start().await;
    relay.publishes().await;
    let mut lines = BufReader::new(log).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("endpoints served")), "what was said while nobody read");
    assert!(
        lines.any(|line| line.contains("event not published: an attempt is counted")),
        "the same line, as often as it may be said"
    );
    assert!(lines.any(|line| line.contains("lines like the next one were left out")), "and how often it was not");
}

#[tokio::test]
async fn a_log_whose_reader_is_gone_costs_lines_and_nothing_else() {
    let (relay, gone) = Talkative::start().await;
    drop(gone);
    relay.wait_until_lines_are_lost().await;
    relay.get("/healthz");
    relay.publishes().await;
    let took = relay.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn an_output_that_nobody_reads_is_an_outage_of_the_bus_and_of_nothing_else() {
    let (unread, writer) = std::io::pipe().unwrap();
    let relay = Talkative::spawn(&[("OUTBOX_PUBLISH_TIMEOUT", "300ms")], writer, Stdio::null());
    relay.insert("events.player", 2_000).await;
    wait_until("the bus is told to be down", async || {
        std::net::TcpStream::connect(relay.address).ok()?;
        let ready = exchange(relay.address, "GET", "/readyz", &[("Host", "localhost")], "");
        (ready.status == 503 && ready.body.contains("nobody reads the output")).then_some(())
    })
    .await;
    let asked = Instant::now();
    relay.get("/healthz");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let took = relay.stop();
    assert!(took < Duration::from_secs(15), "{took:?}");
    drop(unread);
}
