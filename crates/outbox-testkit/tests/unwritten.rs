//! Outcomes that PostgreSQL does not let be written, from some moment of a relay's work on: few copies of what is concerned,
//! everything else out at once, the database's words told, and all of it out once the cause is gone.

mod many;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use gamemesh_outbox::Event;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::{BusPublisher, Receipt};
use gamemesh_outbox::relay::{RelayConfig, Watch};
use gamemesh_outbox::store::OnPublished;
use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::troubles::{Trouble, TroubleKind};
use outbox_testkit::faults::{Fault, FaultyBus};
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use outbox_testkit::wait_until;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_postgres::Client;
use uuid::Uuid;

use super::running::Running;

/// What somebody does to the table, and what the database says then. `{role}` is the relay's login.
struct SqlFault {
    name: &'static str,
    breaks: &'static str,
    heals: &'static str,
    said: &'static str,
}

/// Neighbours of a bad row are out within this time.
const NEIGHBOURS_OUT: Duration = Duration::from_secs(5);

const OF_EVERY_ROW: [SqlFault; 5] = [
    SqlFault {
        name: "no replica identity",
        breaks: "CREATE PUBLICATION every_row FOR TABLE outbox_events; ALTER TABLE outbox_events REPLICA IDENTITY NOTHING",
        heals: "ALTER TABLE outbox_events REPLICA IDENTITY DEFAULT",
        said: "does not have a replica identity",
    },
    SqlFault {
        name: "a policy that lets nothing become PUBLISHED",
        breaks: "ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY see ON outbox_events FOR SELECT USING (true);
                 CREATE POLICY settle ON outbox_events FOR UPDATE USING (true) WITH CHECK (status = 'FAILED')",
        heals: "DROP POLICY settle ON outbox_events; CREATE POLICY settle ON outbox_events FOR UPDATE USING (true)",
        said: "violates row-level security policy",
    },
    SqlFault {
        name: "a rule that does nothing instead",
        breaks: "CREATE RULE keep AS ON UPDATE TO outbox_events DO INSTEAD NOTHING",
        heals: "DROP RULE keep ON outbox_events",
        said: "cannot perform UPDATE RETURNING on relation \"outbox_events\"",
    },
    SqlFault {
        name: "UPDATE revoked",
        breaks: "REVOKE UPDATE ON outbox_events FROM {role}",
        heals: "GRANT UPDATE ON outbox_events TO {role}",
        said: "permission denied",
    },
    SqlFault {
        name: "UPDATE of one column revoked",
        breaks: "REVOKE UPDATE ON outbox_events FROM {role};
                 GRANT UPDATE (published_at, attempt_count, last_error, available_at) ON outbox_events TO {role}",
        heals: "GRANT UPDATE ON outbox_events TO {role}",
        said: "permission denied",
    },
];

/// Row security hides the events, so that nothing fails.
const HIDES_EVERY_ROW: [SqlFault; 2] = [
    SqlFault {
        name: "row level security without a policy",
        breaks: "ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY",
        heals: "CREATE POLICY everything ON outbox_events USING (true)",
        said: "hides every event from this role: no policy for SELECT or UPDATE",
    },
    SqlFault {
        name: "row level security without a policy for updates",
        breaks: "ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY see ON outbox_events FOR SELECT USING (true)",
        heals: "CREATE POLICY settle ON outbox_events FOR UPDATE USING (true)",
        said: "hides every event from this role: no policy for UPDATE",
    },
];

/// What triggers do, to every row or to the bad one: `{when}`.
const TRIGGERS: [SqlFault; 3] = [
    SqlFault {
        name: "a deferred trigger that raises at COMMIT",
        breaks:
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''the books are closed''; END';
                 CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON outbox_events DEFERRABLE INITIALLY DEFERRED
                     FOR EACH ROW {when} EXECUTE FUNCTION refuse()",
        heals: "DROP TRIGGER refuse ON outbox_events",
        said: "the books are closed",
    },
    SqlFault {
        name: "an updated_at trigger without its column",
        breaks: "CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
                     AS 'BEGIN NEW.updated_at = now(); RETURN NEW; END';
                 CREATE TRIGGER touch BEFORE UPDATE ON outbox_events FOR EACH ROW {when} EXECUTE FUNCTION touch()",
        heals: "DROP TRIGGER touch ON outbox_events",
        said: "has no field \"updated_at\"",
    },
    SqlFault {
        name: "a trigger that leaves rows as they are",
        breaks: "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                 CREATE TRIGGER keep BEFORE UPDATE ON outbox_events FOR EACH ROW {when} EXECUTE FUNCTION keep()",
        heals: "DROP TRIGGER keep ON outbox_events",
        said: "is there a trigger, a rule or a row security policy",
    },
];

const OF_ONE_ROW: [SqlFault; 6] = [
    SqlFault {
        name: "a trigger that waits for somebody's lock",
        breaks: "CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql
                     AS 'BEGIN PERFORM pg_advisory_xact_lock(7); RETURN NEW; END';
                 CREATE TRIGGER waits BEFORE UPDATE ON outbox_events FOR EACH ROW WHEN (OLD.event_type = 'bad')
                     EXECUTE FUNCTION waits();
                 SELECT pg_advisory_lock(7)",
        heals: "SELECT pg_advisory_unlock(7)",
        said: "somebody else holds a lock",
    },
    SqlFault {
        name: "a trigger that does not reach another server",
        breaks: "CREATE FUNCTION far() RETURNS trigger LANGUAGE plpgsql
                     AS 'BEGIN RAISE ''could not connect to server far'' USING ERRCODE = ''08001''; END';
                 CREATE TRIGGER far BEFORE UPDATE ON outbox_events FOR EACH ROW WHEN (OLD.event_type = 'bad')
                     EXECUTE FUNCTION far()",
        heals: "DROP TRIGGER far ON outbox_events",
        said: "could not connect to server far",
    },
    SqlFault {
        name: "a trigger whose other server takes no writes",
        breaks: "CREATE FUNCTION standby() RETURNS trigger LANGUAGE plpgsql
                     AS 'BEGIN RAISE ''the archive is read-only'' USING ERRCODE = ''25006''; END';
                 CREATE TRIGGER standby BEFORE UPDATE ON outbox_events FOR EACH ROW
                     WHEN (OLD.event_type = 'bad' AND NEW.status = 'PUBLISHED') EXECUTE FUNCTION standby()",
        heals: "DROP TRIGGER standby ON outbox_events",
        said: "the archive is read-only",
    },
    SqlFault {
        name: "a check that is NOT VALID",
        breaks: "ALTER TABLE outbox_events ADD CONSTRAINT no_bad CHECK (event_type <> 'bad') NOT VALID",
        heals: "ALTER TABLE outbox_events DROP CONSTRAINT no_bad",
        said: "violates check constraint \"no_bad\"",
    },
    SqlFault {
        name: "a policy that does not let one become PUBLISHED",
        breaks: "ALTER TABLE outbox_events ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY see ON outbox_events FOR SELECT USING (true);
                 CREATE POLICY settle ON outbox_events FOR UPDATE USING (true)
                     WITH CHECK (event_type <> 'bad' OR status = 'PENDING')",
        heals: "DROP POLICY settle ON outbox_events; CREATE POLICY settle ON outbox_events FOR UPDATE USING (true)",
        said: "violates row-level security policy",
    },
    SqlFault {
        name: "an index that has no room for a second one",
        breaks: "CREATE UNIQUE INDEX one_of_each ON outbox_events (event_type) WHERE event_type = 'bad' AND status = 'PUBLISHED';
                 INSERT INTO outbox_events (topic, event_type, payload, status) VALUES ('events.old', 'bad', '1', 'PUBLISHED')",
        heals: "DROP INDEX one_of_each",
        said: "violates unique constraint \"one_of_each\"",
    },
];

/// A relay at work, with a login of its own, whose bus counts copies.
struct Scene {
    database: TestDatabase,
    admin: Client,
    role: String,
    bus: MemoryBus,
    relay: Running,
    _watch: JoinSet<()>,
}

/// Starts a relay, and what keeps its verdict.
fn start(
    store: PostgresStore,
    bus: impl BusPublisher,
    stored: &MemoryBus,
    config: RelayConfig,
) -> (Running, JoinSet<()>) {
    let config = RelayConfig { poll_interval: Duration::from_millis(50), ..config };
    let relay = Running::start(store.clone(), bus, config.clone());
    let telemetry = relay.telemetry.clone();
    let watch = Watch::new(Arc::new(store), Arc::new(stored.clone()), config.poll_interval, telemetry);
    let mut watching = JoinSet::new();
    watching.spawn(async move { watch.run(std::future::pending()).await });
    (relay, watching)
}

impl Scene {
    async fn new<B: BusPublisher>(server: &PostgresServer, settings: &str, bus: impl FnOnce(MemoryBus) -> B) -> Self {
        Self::on(server.database().await, settings, RelayConfig::default(), bus).await
    }

    /// Starts a relay on an empty database, and waits until it has settled its first event.
    async fn on<B: BusPublisher>(
        database: TestDatabase,
        settings: &str,
        config: RelayConfig,
        bus: impl FnOnce(MemoryBus) -> B,
    ) -> Self {
        let own = |dsn: &str| PostgresStore::new(PostgresConfig::from_dsn(dsn).unwrap()).unwrap();
        own(&database.dsn()).migrate_up().await.unwrap();
        let admin = database.client().await;
        let role = format!("{}_relay", database.name());
        admin
            .batch_execute(&format!(
                "CREATE ROLE {role} LOGIN;
                 GRANT SELECT, UPDATE, DELETE ON outbox_events TO {role};
                 GRANT SELECT ON outbox_migrations TO {role}; {}",
                settings.replace("{role}", &role)
            ))
            .await
            .unwrap();
        let store = own(&database.dsn().replace("user=postgres", &format!("user={role}")));
        let stored = MemoryBus::default().with_duplicate_window(Duration::ZERO);
        let (relay, watching) = start(store, bus(stored.clone()), &stored, config);
        let scene = Self { database, admin, role, bus: stored, relay, _watch: watching };
        scene.insert(1).await;
        scene.until_published("the first event", 1).await;
        scene
    }

    /// Starts one more relay on the same table and bus.
    fn another_relay(&self) -> (Running, JoinSet<()>) {
        let dsn = self.database.dsn().replace("user=postgres", &format!("user={}", self.role));
        let store = PostgresStore::new(PostgresConfig::from_dsn(&dsn).unwrap()).unwrap();
        start(store, self.bus.clone(), &self.bus, RelayConfig::default())
    }

    async fn sql(&self, sql: &str) {
        let sql = sql.replace("{role}", &self.role);
        self.admin.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// Inserts so many good events at once.
    async fn insert(&self, count: usize) {
        self.sql(&format!("SELECT outbox_publish('events.player', 'good', '1') FROM generate_series(1, {count})"))
            .await;
    }

    /// Inserts twenty events, of which the eighth is bad, at the moment at which `breaks` is done, and returns the id of that one.
    async fn insert_with_a_bad_one(&self, breaks: &str) -> Uuid {
        let insert = "SELECT outbox_publish('events.player', CASE n WHEN 8 THEN 'bad' ELSE 'good' END, '1')
                      FROM generate_series(1, 20) AS n";
        self.sql("BEGIN").await;
        let bad = self.admin.query(insert, &[]).await.unwrap()[7].get(0);
        self.sql(breaks).await;
        self.sql("COMMIT").await;
        bad
    }

    fn published(&self) -> u64 {
        self.relay.progress.borrow().published
    }

    async fn until_published(&self, what: &str, count: u64) {
        wait_until(&format!("{what}: {count} are published"), async || (self.published() >= count).then_some(())).await;
    }

    /// Waits until the relay has tried so many more times to get something settled, or to claim.
    async fn until_tried(&self, what: &str, times: u64) {
        let tries = || {
            let progress = self.relay.progress.borrow();
            progress.unwritten + progress.store_failures
        };
        let before = tries();
        wait_until(&format!("{what}: tried again"), async || (tries() >= before + times).then_some(())).await;
    }

    async fn until_not_ready(&self, what: &str, said: &str) {
        wait_until(&format!("{what}: not ready because of {said:?}"), async || {
            let failure = self.relay.telemetry.verdict().store.failure()?;
            failure.reason.contains(said).then_some(())
        })
        .await;
    }

    async fn until_ready(&self, what: &str) {
        wait_until(&format!("{what}: ready"), async || self.relay.telemetry.verdict().is_ready().then_some(())).await;
    }

    fn outcomes(&self) -> Vec<Trouble> {
        let mut troubles = self.relay.telemetry.all_troubles();
        troubles.retain(|trouble| trouble.kind == TroubleKind::Outcome);
        troubles
    }

    /// Counts the copies on the bus by id.
    fn copies(&self) -> HashMap<Uuid, usize> {
        let mut copies = HashMap::new();
        for message in self.bus.messages() {
            *copies.entry(message.id).or_default() += 1;
        }
        copies
    }

    fn most_copies(&self) -> usize {
        self.copies().into_values().max().unwrap_or_default()
    }
}

async fn nothing_can_be_written(server: &PostgresServer, fault: &SqlFault, most: usize) {
    let SqlFault { name, breaks, heals, said } = fault;
    let scene = Scene::new(server, "", |bus| bus).await;
    scene.sql(&breaks.replace("{when}", "")).await;
    scene.insert(20).await;
    scene.until_not_ready(name, said).await;
    // What other workers had in hand is done with by then.
    scene.until_tried(name, most as u64).await;
    let sent = scene.bus.messages().len();
    scene.until_tried(name, 3).await;
    assert_eq!(scene.bus.messages().len(), sent, "{name}: nothing is sent that was not rehearsed");
    assert_eq!(scene.published(), 1, "{name}: nothing is settled");
    assert!(scene.most_copies() <= most, "{name}: {:?}", scene.copies());
    scene.sql(heals).await;
    scene.until_published(name, 21).await;
    scene.until_ready(name).await;
    let copies = scene.copies();
    assert!(copies.len() == 21 && scene.most_copies() <= most + 1, "{name}: {copies:?}");
    wait_until(&format!("{name}: no trouble is left"), async || scene.outcomes().is_empty().then_some(())).await;
    scene.relay.stop().await;
}

async fn one_cannot_be_written(server: &PostgresServer, fault: &SqlFault) {
    let SqlFault { name, breaks, heals, said } = fault;
    let scene = Scene::new(server, "", |bus| bus).await;
    let breaks = breaks.replace("{when}", "WHEN (OLD.event_type = 'bad')");
    let bad = scene.insert_with_a_bad_one(&breaks).await;
    let began = Instant::now();
    scene.until_published(name, 20).await;
    assert!(began.elapsed() < NEIGHBOURS_OUT, "{name}: the neighbours took {:?}", began.elapsed());
    let told = wait_until(&format!("{name}: the event is named"), async || scene.outcomes().pop()).await;
    assert_eq!(told.name, bad.to_string(), "{name}: {told:?}");
    assert!(told.reason.contains(said), "{name}: {told:?}");
    scene.until_tried(name, 2).await;
    // Events that come later are nobody's neighbours.
    scene.insert(20).await;
    scene.until_published(name, 40).await;
    assert!(scene.relay.telemetry.verdict().is_ready(), "{name}: {:?}", scene.relay.telemetry.verdict());
    let mut copies = scene.copies();
    assert!(copies.remove(&bad).is_some_and(|copies| copies <= 2), "{name}: copies of the bad one");
    assert!(copies.values().all(|copies| *copies == 1), "{name}: {copies:?}");
    scene.sql(heals).await;
    scene.until_published(name, 41).await;
    wait_until(&format!("{name}: no trouble is left"), async || scene.outcomes().is_empty().then_some(())).await;
    assert!(scene.copies()[&bad] <= 3, "{name}: {}", scene.copies()[&bad]);
    scene.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_outcome_can_be_written_few_copies_are_made_and_the_reason_is_told() {
    let server = PostgresServer::shared();
    join_all(OF_EVERY_ROW.iter().chain(&TRIGGERS).map(|fault| nothing_can_be_written(&server, fault, 2))).await;
}

async fn nothing_can_be_seen(server: &PostgresServer, fault: &SqlFault) {
    let SqlFault { name, breaks, heals, said } = fault;
    let scene = Scene::new(server, "", |bus| bus).await;
    scene.sql(breaks).await;
    scene.insert(20).await;
    scene.until_not_ready(name, said).await;
    let polls = scene.relay.progress.borrow().polls;
    wait_until(&format!("{name}: asked again"), async || (scene.relay.progress.borrow().polls > polls).then_some(()))
        .await;
    assert_eq!(scene.bus.messages().len(), 1, "{name}");
    scene.sql(heals).await;
    scene.until_published(name, 21).await;
    scene.until_ready(name).await;
    assert_eq!(scene.most_copies(), 1, "{name}");
    scene.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_row_security_hides_are_no_empty_outbox() {
    let server = PostgresServer::shared();
    join_all(HIDES_EVERY_ROW.iter().map(|fault| nothing_can_be_seen(&server, fault))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_whose_outcome_cannot_be_written_is_named_and_its_neighbours_are_out() {
    let server = PostgresServer::shared();
    join_all(OF_ONE_ROW.iter().chain(&TRIGGERS).map(|fault| one_cannot_be_written(&server, fault))).await;
}

/// What ends a session, with how long it may take, and the first version that has it.
const LIMITS: [(&str, i32); 3] =
    [("idle_in_transaction_session_timeout", 0), (BETWEEN, 0), ("transaction_timeout", 17)];

/// This one ends sessions that hold nothing, which costs nothing.
const BETWEEN: &str = "idle_session_timeout";

async fn version(server: &PostgresServer) -> i32 {
    let client = server.database().await.client().await;
    let version = client.query_one("SELECT current_setting('server_version_num')::int / 10000", &[]).await;
    version.unwrap().get(0)
}

async fn a_limit_is_shorter_than_a_publish(server: &PostgresServer, name: &str) {
    let settings = format!("ALTER ROLE {{role}} SET {name} = '200ms'");
    let slowly = [Fault::Slow(Duration::from_secs(1)); 4];
    let scene = Scene::new(server, &settings, |bus| FaultyBus::new(bus).script(slowly)).await;
    scene.insert(20).await;
    scene.until_published(name, 21).await;
    scene.until_ready(name).await;
    assert_eq!((scene.copies().len(), scene.most_copies()), (21, 1), "{name}: {:?}", scene.copies());
    assert_eq!(scene.outcomes(), [], "{name}");
    let ended = "SELECT sessions_fatal FROM pg_stat_database WHERE datname = current_database()";
    let ended: i64 = scene.admin.query_one(ended, &[]).await.unwrap().get(0);
    assert!(ended == 0 || name == BETWEEN, "{name} ended {ended} sessions");
    scene.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_for_sessions_and_transactions_that_is_shorter_than_a_publish_makes_no_copies() {
    let server = PostgresServer::shared();
    let version = version(&server).await;
    let limits = LIMITS.iter().filter(|(_, since)| version >= *since);
    join_all(limits.map(|(name, _)| a_limit_is_shorter_than_a_publish(&server, name))).await;
}

/// Settlements that end their own session, whatever the relay sets: by hand, and by a limit that begins in the midst.
const ENDS_THE_SESSION: [(SqlFault, i32); 2] = [
    (
        SqlFault {
            name: "somebody ends every session that settles",
            breaks: "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
                         AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END';
                     CREATE TRIGGER end_it BEFORE UPDATE ON outbox_events FOR EACH ROW EXECUTE FUNCTION end_it()",
            heals: "DROP TRIGGER end_it ON outbox_events",
            said: "terminating connection due to administrator command",
        },
        0,
    ),
    (
        SqlFault {
            name: "a transaction_timeout that begins with the settlement",
            breaks: "CREATE FUNCTION end_it() RETURNS trigger LANGUAGE plpgsql
                         AS 'BEGIN PERFORM set_config(''transaction_timeout'', ''20ms'', true);
                             LOOP PERFORM 1; END LOOP; END';
                     CREATE TRIGGER end_it BEFORE UPDATE ON outbox_events FOR EACH ROW EXECUTE FUNCTION end_it()",
            heals: "DROP TRIGGER end_it ON outbox_events",
            said: "terminating connection due to transaction timeout",
        },
        17,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_over_every_settlement_cost_few_copies_and_the_reason_is_told() {
    let server = PostgresServer::shared();
    let version = version(&server).await;
    // A session that ends frees its rows, and each of the others may take them before any of them knows.
    let workers = RelayConfig::default().workers as usize;
    let faults = ENDS_THE_SESSION.iter().filter(|(_, since)| version >= *since);
    join_all(faults.map(|(fault, _)| nothing_can_be_written(&server, fault, workers))).await;
}

/// A bus at which somebody ends every transaction that waits, as often as it is given something.
struct Impatient {
    inner: MemoryBus,
    admin: Client,
}

#[async_trait]
impl BusPublisher for Impatient {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let receipts = self.inner.publish(events).await;
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND state = 'idle in transaction'";
        self.admin.query(end, &[]).await.unwrap();
        receipts
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_somebody_ends_after_each_publish_costs_no_copy() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let admin = database.client().await;
    let one_worker = RelayConfig { workers: 1, ..RelayConfig::default() };
    let scene = Scene::on(database, "", one_worker, |inner| Impatient { inner, admin }).await;
    for round in 0..3 {
        scene.insert(20).await;
        scene.until_published("whatever ends", 21 + 20 * round).await;
    }
    assert_eq!((scene.copies().len(), scene.most_copies()), (61, 1), "{:?}", scene.copies());
    scene.until_ready("whatever ends").await;
    scene.relay.stop().await;
}

/// After the statement has said that an event is marked, so that nothing fails.
const PUTS_BACK: [(&str, OnPublished, &str); 3] = [
    (
        "a trigger",
        OnPublished::Mark,
        "CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
             UPDATE outbox_events SET status = ''PENDING'', published_at = NULL WHERE id = NEW.id; RETURN NULL; END';
         CREATE TRIGGER put_back AFTER UPDATE ON outbox_events FOR EACH ROW
             WHEN (OLD.event_type = 'bad' AND NEW.status = 'PUBLISHED') EXECUTE FUNCTION put_back()",
    ),
    (
        "a deferred trigger",
        OnPublished::Mark,
        "CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
             UPDATE outbox_events SET status = ''PENDING'', published_at = NULL WHERE id = NEW.id; RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER put_back AFTER UPDATE ON outbox_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
             WHEN (OLD.event_type = 'bad' AND NEW.status = 'PUBLISHED') EXECUTE FUNCTION put_back()",
    ),
    (
        "a trigger that inserts what was deleted",
        OnPublished::Delete,
        "CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS 'BEGIN
             INSERT INTO outbox_events SELECT OLD.*; RETURN NULL; END';
         CREATE TRIGGER put_back AFTER DELETE ON outbox_events FOR EACH ROW
             WHEN (OLD.event_type = 'bad') EXECUTE FUNCTION put_back()",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_is_put_back_after_it_was_marked_is_sent_once_and_named() {
    let server = PostgresServer::shared();
    join_all(PUTS_BACK.iter().map(|(name, on_published, breaks)| puts_back(&server, name, *on_published, breaks)))
        .await;
}

async fn puts_back(server: &PostgresServer, name: &str, on_published: OnPublished, breaks: &str) {
    let database = server.database().await;
    let scene = Scene::on(database, "", RelayConfig { on_published, ..RelayConfig::default() }, |bus| bus).await;
    let bad = scene.insert_with_a_bad_one(breaks).await;
    scene.until_published(name, 20).await;
    let told = wait_until(&format!("{name}: the event is named"), async || scene.outcomes().pop()).await;
    assert!(told.name == bad.to_string() && told.reason.contains("PENDING again"), "{name}: {told:?}");
    scene.until_tried(name, 2).await;
    let copies = scene.copies();
    assert!(copies.values().all(|copies| *copies <= 2), "{name}: {copies:?}");
    assert!(copies.iter().all(|(id, copies)| *copies == 1 || *id == bad), "{name}: {copies:?}");
    scene.sql("DROP TRIGGER put_back ON outbox_events").await;
    wait_until(&format!("{name}: no trouble is left"), async || scene.outcomes().is_empty().then_some(())).await;
    // Somebody who sends an event once more is obeyed.
    let before = scene.copies().get(&bad).copied().unwrap_or_default();
    if on_published == OnPublished::Mark {
        scene.sql("UPDATE outbox_events SET status = 'PENDING', published_at = NULL WHERE event_type = 'bad'").await;
        wait_until(&format!("{name}: sent again"), async || (scene.copies()[&bad] > before).then_some(())).await;
    }
    scene.relay.stop().await;
}
