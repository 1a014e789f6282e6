//! Every store passes the one suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gamemesh_outbox::store::memory::MemoryStore;
use gamemesh_outbox::store::postgres::{EXAMPLE_MIGRATIONS, PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use gamemesh_outbox::store::sqlite::{SqliteConfig, SqliteStore};
use gamemesh_outbox::store::{Outcome, Status};
use gamemesh_outbox::{NewEvent, OutboxPublisher};
use outbox_testkit::servers::{PgBouncer, PostgresServer, TestDatabase};
use outbox_testkit::store_suite::{self, End, HostileRow, REFUSAL, Refused, StoreHarness, StoredRow};
use sqlx::SqlitePool;
use tempfile::TempDir;
use uuid::Uuid;

#[tokio::test(start_paused = true)]
async fn the_memory_store_passes_the_suite() {
    store_suite::run(async || MemoryHarness::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_passes_the_suite() {
    let database = PostgresServer::shared().database().await;
    let store = PostgresStore::new(PostgresConfig::from_dsn(&database.dsn()).unwrap()).unwrap();
    store.apply_migrations("example_migrations", &EXAMPLE_MIGRATIONS).await.unwrap();
    store.migrate_up().await.unwrap();
    store_suite::run(async || PostgresHarness::empty(&database).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postgres_store_passes_the_suite_behind_a_pooler_in_transaction_mode() {
    let server = PostgresServer::shared();
    let database = server.database().await;
    let pooler = PgBouncer::start(&server).await.unwrap();
    let dsn = database.dsn().replace(&format!("port={}", server.port()), &format!("port={}", pooler.port()));
    let store = PostgresStore::new(PostgresConfig::from_dsn(&dsn).unwrap()).unwrap();
    store.apply_migrations("example_migrations", &EXAMPLE_MIGRATIONS).await.unwrap();
    store.migrate_up().await.unwrap();
    store_suite::run(async || PostgresHarness { dsn: dsn.clone(), ..PostgresHarness::empty(&database).await }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sqlite_store_passes_the_suite() {
    store_suite::run(SqliteHarness::empty).await;
}

#[derive(Default)]
struct MemoryHarness {
    store: MemoryStore,
    business_rows: Arc<AtomicU64>,
}

impl StoreHarness for MemoryHarness {
    type Store = MemoryStore;

    fn replica(&self) -> MemoryStore {
        self.store.clone()
    }

    async fn insert(&self, events: Vec<NewEvent>, end: End) {
        let mut transaction = self.store.begin();
        OutboxPublisher::default().publish_all(&mut transaction, events).await.unwrap();
        if end == End::Commit {
            transaction.commit();
            self.business_rows.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn business_rows(&self) -> u64 {
        self.business_rows.load(Ordering::Relaxed)
    }

    async fn insert_hostile(&self, _: HostileRow) -> bool {
        // Its rows are typed: there is no other way in than the producer.
        false
    }

    async fn row(&self, id: Uuid) -> Option<StoredRow> {
        let row = self.store.row(id)?;
        Some(StoredRow {
            status: row.status,
            attempt_count: row.event.attempt_count,
            last_error: row.last_error,
            published_at: row.published_at,
        })
    }

    async fn refer(&self, id: Uuid) {
        self.store.refer(id, true);
    }

    async fn pass(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    async fn refuse(&self, refused: Option<(Uuid, Refused)>) {
        let Some((bad, what)) = refused else { return self.store.refuse_nothing() };
        self.store.refuse(move |id, outcome| {
            let refuses = id == bad && (what == Refused::Change || *outcome == Outcome::Published);
            refuses.then(|| REFUSAL.to_owned())
        });
    }
}

struct PostgresHarness {
    client: tokio_postgres::Client,
    dsn: String,
}

impl PostgresHarness {
    async fn empty(database: &TestDatabase) -> Self {
        let client = database.client().await;
        let empty = "DROP TRIGGER IF EXISTS refuse ON outbox_events; TRUNCATE outbox_events, players CASCADE";
        client.batch_execute(empty).await.unwrap();
        Self { client, dsn: database.dsn() }
    }
}

impl StoreHarness for PostgresHarness {
    type Store = PostgresStore;

    fn replica(&self) -> PostgresStore {
        PostgresStore::new(PostgresConfig::from_dsn(&self.dsn).unwrap()).unwrap()
    }

    async fn insert(&self, events: Vec<NewEvent>, end: End) {
        let (mut client, connection) = tokio_postgres::connect(&self.dsn, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let mut transaction = client.transaction().await.unwrap();
        let insert = "INSERT INTO players (username, email, password_hash)
                      SELECT left(id::text, 32), id::text, '!' FROM gen_random_uuid() AS id";
        transaction.batch_execute(insert).await.unwrap();
        OutboxPublisher::default().publish_all(&mut transaction, events).await.unwrap();
        match end {
            End::Commit => transaction.commit().await.unwrap(),
            End::RollBack => transaction.rollback().await.unwrap(),
        }
    }

    async fn business_rows(&self) -> u64 {
        let row = self.client.query_one("SELECT count(*) FROM players", &[]).await.unwrap();
        row.get::<_, i64>(0).unsigned_abs()
    }

    async fn insert_hostile(&self, row: HostileRow) -> bool {
        let insert = "INSERT INTO outbox_events (id, topic, event_type, payload, headers, carrier, attempt_count)
                      VALUES ($1, 'events.player', 'registered', '{}', $2::text::jsonb, $3::text::jsonb, $4)";
        self.client.execute(insert, &[&row.id, &row.headers, &row.carrier, &row.attempt_count]).await.unwrap();
        true
    }

    async fn row(&self, id: Uuid) -> Option<StoredRow> {
        let select = "SELECT status, attempt_count, last_error, published_at FROM outbox_events WHERE id = $1";
        let row = self.client.query_opt(select, &[&id]).await.unwrap()?;
        let status = match row.get(0) {
            "PENDING" => Status::Pending,
            "PUBLISHED" => Status::Published,
            "FAILED" => Status::Failed,
            other => panic!("unknown status {other}"),
        };
        let (attempt_count, last_error, published_at) = (row.get(1), row.get(2), row.get(3));
        Some(StoredRow { status, attempt_count, last_error, published_at })
    }

    async fn refer(&self, id: Uuid) {
        let table = "CREATE TABLE IF NOT EXISTS inbox (event_id uuid REFERENCES outbox_events (id))";
        self.client.batch_execute(table).await.unwrap();
        self.client.execute("INSERT INTO inbox VALUES ($1)", &[&id]).await.unwrap();
    }

    async fn pass(&self, time: Duration) {
        let pass = "UPDATE outbox_events SET
            created_at = created_at - $1 * interval '1 second',
            available_at = available_at - $1 * interval '1 second',
            published_at = published_at - $1 * interval '1 second'";
        self.client.execute(pass, &[&time.as_secs_f64()]).await.unwrap();
    }

    async fn refuse(&self, refused: Option<(Uuid, Refused)>) {
        let (id, changes) = refused.map_or((Uuid::nil(), false), |(id, what)| (id, what == Refused::Change));
        let refuse = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 IF OLD.id = '{id}' AND ({changes} OR TG_OP = 'DELETE' OR NEW.status = 'PUBLISHED') THEN
                     RAISE EXCEPTION '{REFUSAL}';
                 END IF;
                 IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
                 RETURN NEW;
             END $$;
             CREATE OR REPLACE TRIGGER refuse BEFORE UPDATE OR DELETE ON outbox_events
             FOR EACH ROW EXECUTE FUNCTION refuse()"
        );
        self.client.batch_execute(&refuse).await.unwrap();
    }
}

struct SqliteHarness {
    store: SqliteStore,
    pool: SqlitePool,
    _folder: TempDir,
}

impl SqliteHarness {
    async fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SqliteConfig::new(folder.path().join("outbox.db")).create_if_missing(true);
        let store = SqliteStore::open(&config).await.unwrap();
        store.migrate_up().await.unwrap();
        let pool = SqlitePool::connect_with(config.connect_options()).await.unwrap();
        sqlx::raw_sql("CREATE TABLE players (name TEXT NOT NULL)").execute(&pool).await.unwrap();
        Self { store, pool, _folder: folder }
    }
}

impl StoreHarness for SqliteHarness {
    type Store = SqliteStore;

    /// Replicas of one process; that another process stands by is SQLite's own affair and tested there.
    fn replica(&self) -> SqliteStore {
        self.store.clone()
    }

    async fn insert(&self, events: Vec<NewEvent>, end: End) {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        sqlx::raw_sql("INSERT INTO players (name) VALUES ('Ada')").execute(&mut *transaction).await.unwrap();
        OutboxPublisher::default().publish_all(&mut transaction, events).await.unwrap();
        match end {
            End::Commit => transaction.commit().await.unwrap(),
            End::RollBack => transaction.rollback().await.unwrap(),
        }
    }

    async fn business_rows(&self) -> u64 {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM players").fetch_one(&self.pool).await.unwrap();
        count.unsigned_abs()
    }

    async fn insert_hostile(&self, row: HostileRow) -> bool {
        let insert = "INSERT INTO outbox_events (id, topic, event_type, payload, headers, carrier, attempt_count)
                      VALUES (?1, 'events.player', 'registered', '{}', ?2, ?3, ?4)";
        let insert = sqlx::query(insert).bind(row.id.to_string()).bind(row.headers).bind(row.carrier);
        insert.bind(row.attempt_count).execute(&self.pool).await.unwrap();
        true
    }

    async fn row(&self, id: Uuid) -> Option<StoredRow> {
        let select = "SELECT status, attempt_count, last_error, published_at FROM outbox_events WHERE id = ?1";
        let row = sqlx::query_as::<_, (String, i32, String, Option<String>)>(select).bind(id.to_string());
        let (status, attempt_count, last_error, published_at) = row.fetch_optional(&self.pool).await.unwrap()?;
        let status = match status.as_str() {
            "PENDING" => Status::Pending,
            "PUBLISHED" => Status::Published,
            "FAILED" => Status::Failed,
            other => panic!("unknown status {other}"),
        };
        let published_at = published_at.map(|time| time.parse().unwrap());
        Some(StoredRow { status, attempt_count, last_error, published_at })
    }

    async fn refer(&self, id: Uuid) {
        let table = "CREATE TABLE IF NOT EXISTS inbox (event_id TEXT REFERENCES outbox_events (id))";
        sqlx::raw_sql(table).execute(&self.pool).await.unwrap();
        let insert = sqlx::query("INSERT INTO inbox VALUES (?1)").bind(id.to_string());
        insert.execute(&self.pool).await.unwrap();
    }

    async fn pass(&self, time: Duration) {
        let pass = "UPDATE outbox_events SET
            created_at = strftime('%Y-%m-%dT%H:%M:%fZ', created_at, ?1),
            available_at = strftime('%Y-%m-%dT%H:%M:%fZ', available_at, ?1),
            published_at = strftime('%Y-%m-%dT%H:%M:%fZ', published_at, ?1)";
        let earlier = format!("-{:.3} seconds", time.as_secs_f64());
        sqlx::query(pass).bind(earlier).execute(&self.pool).await.unwrap();
    }

    async fn refuse(&self, refused: Option<(Uuid, Refused)>) {
        let mut refuse = "DROP TRIGGER IF EXISTS refuse; DROP TRIGGER IF EXISTS refuse_delete;".to_owned();
        if let Some((id, what)) = refused {
            let marks = if what == Refused::Publication { "AND NEW.status = 'PUBLISHED'" } else { "" };
            refuse += &format!(
                "CREATE TRIGGER refuse BEFORE UPDATE ON outbox_events WHEN OLD.id = '{id}' {marks}
                 BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END;
                 CREATE TRIGGER refuse_delete BEFORE DELETE ON outbox_events WHEN OLD.id = '{id}'
                 BEGIN SELECT RAISE(ABORT, '{REFUSAL}'); END;"
            );
        }
        sqlx::raw_sql(sqlx::AssertSqlSafe(refuse)).execute(&self.pool).await.unwrap();
    }
}
