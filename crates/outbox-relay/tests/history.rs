//! The real program, killed and stopped, on a real database and a real bus: everybody's records of it, and what the checker
//! says of them.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use gamemesh_outbox::NewEvent;
use gamemesh_outbox::bus::nats::NatsReader;
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::store::OnPublished;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use outbox_testkit::checker::{Report, Seen, check};
use outbox_testkit::history::collect::postgres::ChangeLog;
use outbox_testkit::history::collect::producer::Producer;
use outbox_testkit::history::collect::{self, metrics, relay};
use outbox_testkit::history::{
    Configuration, Delivery, Exit, Facts, Fault, FaultRecord, History, Recorder, RelayEvent, RelayRecord, RelayRun,
    Rest, wall_clock,
};
use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer, TestDatabase};
use outbox_testkit::wait_until;
use serde_json::json;
use tempfile::TempDir;

use crate::program::{command, exchange, run, transcript};

const SECOND: u64 = 1_000_000_000;
const TRANSACTIONS: u64 = 60;

/// Everything that one run needs.
struct Scene {
    database: TestDatabase,
    settings: Vec<(&'static str, String)>,
    folder: TempDir,
    recorder: Recorder,
}

/// A relay with its history in its log.
struct Relay {
    child: Child,
    run: RelayRun,
    log: std::path::PathBuf,
}

impl Scene {
    async fn new(server: &PostgresServer, bus: &str, url: (&'static str, String)) -> Self {
        let database = server.database().await;
        let settings = vec![
            ("POSTGRES_DSN", database.dsn()),
            ("EVENT_BUS", bus.to_owned()),
            url,
            ("OUTBOX_BATCH_SIZE", "10".to_owned()),
            ("OUTBOX_BATCH_SIZE_MAX", "10".to_owned()),
            ("OUTBOX_MAX_ATTEMPTS", "2".to_owned()),
            ("OUTBOX_RETRY_BACKOFF", "10ms".to_owned()),
            ("OUTBOX_RETRY_BACKOFF_MAX", "20ms".to_owned()),
            ("OUTBOX_POLL_INTERVAL", "20ms".to_owned()),
            ("OUTBOX_HTTP_ADDRESS", "127.0.0.1".to_owned()),
            ("HTTP_PORT", "0".to_owned()),
            ("OUTBOX_LOG_FORMAT", "json".to_owned()),
            ("LOG_LEVEL", "info,gamemesh_outbox::history=trace".to_owned()),
        ];
        let folder = TempDir::new().unwrap();
        let recorder = Recorder::in_folder(folder.path()).unwrap();
        let scene = Self { database, settings, folder, recorder };
        let migrated = run(&["migrate", "up"], &scene.environment());
        assert!(migrated.status.success(), "{}", transcript(&migrated));
        scene
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    fn relay(&self, name: &str) -> Relay {
        Relay::start(name, command(&["run"], &self.environment()), self.folder.path())
    }

    /// Commits most transactions, rolls back some, and inserts one event that no bus can take.
    async fn produce(&self, name: &str) {
        let mut client = self.database.client().await;
        let mut producer = Producer::new(name, self.recorder.clone());
        for number in 0..TRANSACTIONS {
            let event = |part: u64| {
                let payload = json!({"z": number, "part": part, "text": "it's ü \u{1F600} \"quoted\"", "n": 1e300});
                let event = NewEvent::new("events.player", "registered", &payload).unwrap();
                event.key(format!("player-{number}")).header("Tenant", "eu-1")
            };
            let events: Vec<NewEvent> = (0..1 + number % 3).map(event).collect();
            producer.transact(&mut client, &events, |_| false, number % 4 != 3).await;
        }
        let poison = NewEvent::new("events..player", "registered", &1).unwrap();
        producer.transact(&mut client, &[poison], |_| true, true).await;
    }

    async fn until_count(&self, what: &str, condition: &str, reached: impl Fn(i64) -> bool) {
        let client = self.database.client().await;
        let sql = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        wait_until(what, async || reached(client.query_one(&sql, &[]).await.unwrap().get(0)).then_some(())).await;
    }

    /// Kills one relay at work, lets a second one do the rest, and stops that.
    async fn run(
        self,
        dedup_window: Option<u64>,
        deliveries: impl AsyncFnOnce() -> Vec<Delivery>,
    ) -> (History, Report) {
        let log = ChangeLog::create(self.database.client().await, "history").await.unwrap();
        self.produce("producer-1").await;
        let first = self.relay("relay-1");
        self.until_count("the first relay is at work", "status = 'PUBLISHED'", |count| count > 0).await;
        let fault = Fault::Kill(first.run.clone());
        self.recorder.fault(FaultRecord { at: wall_clock(), until: None, fault, details: String::new() });
        first.signal(Signal::SIGKILL);
        first.end(&self.recorder);
        self.produce("producer-2").await;

        let second = self.relay("relay-2");
        self.until_count("everything is at rest", "status = 'PENDING'", |count| count == 0).await;
        let rest = second.rest().await;
        second.signal(Signal::SIGTERM);
        second.end(&self.recorder);

        log.finish().await.unwrap().into_iter().for_each(|change| self.recorder.change(change));
        deliveries().await.into_iter().for_each(|delivery| self.recorder.delivery(delivery));
        let configuration = Configuration {
            attempts_max: 2,
            charges_all: false,
            on_published: OnPublished::Mark,
            retention: None,
            retry_max: SECOND / 25,
            settle_max: 10 * SECOND,
        };
        let clock_tolerance = SECOND / 50;
        let facts = Facts { configuration, clock_tolerance, dedup_window, relays_trace: false, rest: Some(rest) };
        let history = self.recorder.finish(facts).unwrap();
        let report = check(&history);
        (history, report)
    }
}

impl Relay {
    fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let log = folder.join(format!("{name}.log"));
        let child = command.stdin(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let run = RelayRun { name: name.to_owned(), run: child.id() };
        Self { child, run, log }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Waits for its end and records what it said.
    fn end(mut self, recorder: &Recorder) {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().unwrap();
        let at = wall_clock();
        let said = relay::log(&self.run, &std::fs::read_to_string(&self.log).unwrap(), 0).unwrap();
        said.into_iter().for_each(|record| recorder.relay(record));
        let exit = status.code().map_or_else(|| Exit::Signal(status.signal().unwrap()), Exit::Code);
        recorder.relay(RelayRecord { at, relay: self.run.clone(), event: RelayEvent::Exited(exit) });
    }

    /// Reads its metrics when the gauges have followed the table.
    async fn rest(&self) -> Rest {
        let address = wait_until("the relay serves its endpoints", async || {
            let log = std::fs::read_to_string(&self.log).unwrap();
            let line = log.lines().find(|line| line.contains("endpoints served"))?;
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            Some(line["address"].as_str().unwrap().parse().unwrap())
        })
        .await;
        wait_until("the gauges follow the table", async || {
            let text = exchange(address, "GET", "/metrics", &[("Host", "localhost")], "").body;
            let (pending, failed) = metrics::gauges(&text).unwrap();
            let relays = vec![metrics::counters(self.run.clone(), &text).unwrap()];
            (pending == 0 && failed == 2).then_some(Rest { at: wall_clock(), pending, failed, relays })
        })
        .await
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn assert_kept(history: &History, report: &Report) {
    assert!(report.is_clean(), "{report}");
    let committed = 2 * (2 * TRANSACTIONS / 3);
    let seen = [
        (Seen::AbortedTransactions, 2 * (TRANSACTIONS / 4)),
        (Seen::Published, committed),
        (Seen::Failed, 2),
        (Seen::Charged, 4),
        (Seen::Kills, 1),
        (Seen::Stops, 1),
        (Seen::Claims, 2 * committed / 10),
    ];
    assert_eq!(report.shortfalls(&seen), [], "{report}");
    assert_eq!(history.facts.rest.as_ref().unwrap().relays.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_is_kept_on_nats() {
    let (server, bus) = (PostgresServer::start().await.unwrap(), NatsServer::start().await.unwrap());
    let scene = Scene::new(&server, "nats", ("NATS_URL", bus.url())).await;
    let deliveries = async || {
        let client = async_nats::connect(bus.url()).await.unwrap();
        collect::bus::read(&NatsReader::new(client, "PLAYER")).await.unwrap()
    };
    let (mut history, report) = scene.run(Some(120 * SECOND), deliveries).await;
    assert_kept(&history, &report);

    // The same evidence, less one message: a checker that sees nothing would not notice.
    let lost = history.bus.pop().unwrap();
    let report = check(&history);
    let loss = &report.rules[0];
    assert_eq!((loss.violations, loss.examples[0].id), (1, Some(lost.id)), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_promise_is_kept_on_redis() {
    let (server, bus) = (PostgresServer::start().await.unwrap(), RedisServer::start().await.unwrap());
    let scene = Scene::new(&server, "redis", ("REDIS_URL", bus.url())).await;
    let redis = RedisBus::connect(RedisConfig { url: bus.url(), ..RedisConfig::default() }).await.unwrap();
    let deliveries = async || collect::bus::read(&redis.reader("events.player")).await.unwrap();
    let (history, report) = scene.run(None, deliveries).await;
    assert_kept(&history, &report);
}
