//! Rows that a careless or hostile producer inserts: each has the outcome that is expected of it, and between any two
//! stands an ordinary event that none of them may harm.

mod expect;
mod read;
mod rows;

use std::collections::{BTreeMap, HashMap, HashSet};

use outbox_testkit::servers::{NatsServer, PostgresServer, RedisServer};
use outbox_testkit::wait_until;
use uuid::Uuid;

use self::expect::{BusKind, Expect, Row, numbered};
use self::read::{Message, Table, messages_of_nats, messages_of_redis};
use self::rows::rows;
use crate::program::{Relay, exchange, run, sqlite, transcript};

/// Where rows go, and what came of them.
struct Scene {
    table: Table,
    bus: BusKind,
    settings: Vec<(&'static str, String)>,
}

/// A row that the database took.
struct Inserted<'a> {
    row: &'a Row,
    id: Uuid,
    expected: Expect,
}

impl Scene {
    fn new(table: Table, database: (&'static str, String), bus: BusKind, url: String) -> Self {
        let (bus_name, url_name) = match bus {
            BusKind::Nats => ("nats", "NATS_URL"),
            BusKind::Redis => ("redis", "REDIS_URL"),
        };
        let settings = vec![
            database,
            ("EVENT_BUS", bus_name.to_owned()),
            (url_name, url),
            ("OUTBOX_NATS_STREAMS", format!("EVENTS=events|{}", "t".repeat(255))),
            ("OUTBOX_POLL_INTERVAL", "20ms".to_owned()),
            ("OUTBOX_MAX_ATTEMPTS", "1".to_owned()),
        ];
        Self { table, bus, settings }
    }

    fn environment(&self) -> Vec<(&str, &str)> {
        self.settings.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }

    /// Inserts every row, an ordinary event before each and one behind the last, and returns what the database took.
    async fn insert<'a>(&mut self, rows: &'a [Row], failures: &mut Vec<String>) -> Vec<Inserted<'a>> {
        let mut taken = Vec::new();
        for (number, row) in rows.iter().enumerate() {
            let Some(expected) = row.on(self.table.kind(), self.bus) else { continue };
            self.table.insert(&neighbour(number)).await.unwrap();
            let id = row.id(number);
            match (self.table.insert(&row.insert(id)).await, expected) {
                (Err(error), Expect::NotInserted(what)) if error.contains(self.table.refusal(what)) => {}
                (Ok(()), expected) if !matches!(expected, Expect::NotInserted(_)) => {
                    taken.push(Inserted { row, id, expected });
                }
                (inserted, expected) => {
                    failures.push(format!("{}: inserted {inserted:?}, expected {expected:?}", row.name))
                }
            }
        }
        self.table.insert(&neighbour(rows.len())).await.unwrap();
        taken
    }

    async fn check(mut self, read: impl AsyncFnOnce() -> Vec<Message>) {
        let migrated = run(&["migrate", "up"], &self.environment());
        assert!(migrated.status.success(), "{}", transcript(&migrated));
        let rows = rows();
        let mut failures = Vec::new();
        let inserted = self.insert(&rows, &mut failures).await;
        let neighbours = self.table.count("event_type = 'neighbour'").await;
        let resting: HashSet<Uuid> =
            inserted.iter().filter(|row| row.expected == Expect::Unchanged).map(|row| row.id).collect();
        let names: HashMap<Uuid, &str> = inserted.iter().map(|row| (row.id, row.row.name.as_str())).collect();

        let relay = Relay::start(&self.environment());
        let mut waiting = Vec::new();
        wait_until("every row that can end has ended", async || {
            let mut pending = self.table.pending().await;
            pending.retain(|id| !resting.contains(id));
            if pending != waiting {
                waiting = pending;
                eprintln!(
                    "{:?}: {} rows wait, the first is {:?}",
                    self.bus,
                    waiting.len(),
                    waiting.first().and_then(|id| names.get(id))
                );
            }
            waiting.is_empty().then_some(())
        })
        .await;

        let mut arrived: BTreeMap<Uuid, Vec<Message>> = BTreeMap::new();
        for message in read().await {
            arrived.entry(message.id).or_default().push(message);
        }
        for row in &inserted {
            let found = arrived.remove(&row.id).unwrap_or_default();
            if let Err(problem) = self.judge(row, &found).await {
                failures.push(format!("{}: {problem}", row.row.name));
            }
        }
        let sent = |expected| matches!(expected, Expect::Delivered | Expect::Untraced);
        let sent = inserted.iter().filter(|row| sent(row.expected)).count();
        let refused = inserted.iter().filter(|row| matches!(row.expected, Expect::Refused(_))).count();
        if arrived.len() as i64 != neighbours || arrived.values().any(|copies| copies.len() != 1) {
            failures.push(format!("{neighbours} neighbours, {} arrived, or one more than once", arrived.len()));
        }
        failures.extend(self.ask_operators_questions(&relay, &inserted));
        for (counter, expected) in [("events_published", sent + neighbours as usize), ("events_dead_lettered", refused)]
        {
            let line = format!("gamemesh_outbox_{counter}_total{{service=\"outbox-relay\"}} {expected}\n");
            if !relay.get("/metrics").1.contains(&line) {
                failures.push(format!("expected in the metrics: {line}"));
            }
        }
        let discarded = run(&["dead-letters", "discard", "--all", "--yes", "--reason", "a test"], &self.environment());
        if !discarded.status.success() || self.table.count("status = 'FAILED'").await != 0 {
            failures.push(format!("not discarded: {}", transcript(&discarded)));
        }
        assert!(failures.is_empty(), "{} of {} rows:\n{}", failures.len(), rows.len(), failures.join("\n"));
        assert!(sent > 60 && refused > 60, "{sent} sent, {refused} refused");
    }

    async fn judge(&mut self, row: &Inserted<'_>, arrived: &[Message]) -> Result<(), String> {
        let state = self.table.state(row.id).await;
        match row.expected {
            Expect::Delivered | Expect::Untraced => {
                let [message] = arrived else { return Err(format!("{} messages, {state:?}", arrived.len())) };
                let mut event = self.table.event(row.id).await;
                if row.expected == Expect::Untraced {
                    event.carrier = None;
                }
                (state.status == "PUBLISHED").then_some(()).ok_or_else(|| format!("{state:?}"))?;
                event.compare(message, self.bus)
            }
            Expect::Refused(why) => {
                let refused = arrived.is_empty()
                    && state.status == "FAILED"
                    && (1..=i64::from(i32::MAX)).contains(&state.attempts)
                    && state.error.contains(why)
                    && state.error.len() < 1100
                    && !state.error.contains(char::is_control);
                refused
                    .then_some(())
                    .ok_or_else(|| format!("expected {why:?}, got {state:?}, {} messages", arrived.len()))
            }
            Expect::Unchanged => {
                let unchanged = arrived.is_empty() && state.attempts == 0 && state.error.is_empty();
                unchanged.then_some(()).ok_or_else(|| format!("{state:?}, {} messages", arrived.len()))
            }
            Expect::NotInserted(_) => unreachable!("it is not in the table"),
        }
    }

    /// Lists, groups and shows what was set aside: whoever has to clean up must be able to.
    fn ask_operators_questions(&self, relay: &Relay, inserted: &[Inserted<'_>]) -> Vec<String> {
        let mut failures = Vec::new();
        for arguments in [&["status"][..], &["dead-letters", "list"], &["dead-letters", "list", "--group"]] {
            let output = run(arguments, &self.environment());
            if !output.status.success() {
                failures.push(format!("{arguments:?}: {}", transcript(&output)));
            }
        }
        for row in inserted.iter().filter(|row| matches!(row.expected, Expect::Refused(_))) {
            let path = format!("/api/v1/dead-letters/{}", row.id);
            let answer = exchange(relay.address(), "GET", &path, &[("Host", "localhost")], "");
            if answer.status != 200 {
                failures.push(format!("{}: {path}: {} {}", row.row.name, answer.status, answer.body));
            }
        }
        failures
    }
}

fn neighbour(number: usize) -> String {
    let id = numbered(2, number);
    format!(
        "INSERT INTO outbox_events (id, topic, event_type, payload) VALUES ('{id}', 'events.player', 'neighbour', '{number}')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_rows_of_postgres_harm_nobody_on_nats() {
    let database = PostgresServer::shared().database().await;
    let nats = NatsServer::start().await.unwrap();
    let table = Table::Postgres(database.client().await);
    let scene = Scene::new(table, ("POSTGRES_DSN", database.dsn()), BusKind::Nats, nats.url());
    scene.check(async || messages_of_nats(&nats).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_rows_of_postgres_harm_nobody_on_redis() {
    let database = PostgresServer::shared().database().await;
    let redis = RedisServer::start().await.unwrap();
    let table = Table::Postgres(database.client().await);
    let scene = Scene::new(table, ("POSTGRES_DSN", database.dsn()), BusKind::Redis, redis.url());
    scene.check(async || messages_of_redis(&redis).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_rows_of_sqlite_harm_nobody_on_nats() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let nats = NatsServer::start().await.unwrap();
    let migrated = run(&["migrate", "up"], &[("DATABASE_URL", &url)]);
    assert!(migrated.status.success(), "{}", transcript(&migrated));
    let scene = Scene::new(Table::open_sqlite(folder.path()).await, ("DATABASE_URL", url), BusKind::Nats, nats.url());
    scene.check(async || messages_of_nats(&nats).await).await;
}
