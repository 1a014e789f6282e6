//! An outbox on a PostgreSQL server that counts what it does.

use std::collections::BTreeMap;

use gamemesh_outbox::store::postgres::{PostgresConfig, PostgresStore};
use gamemesh_outbox::store::schema::Schema;
use outbox_testkit::servers::{PostgresServer, TestDatabase};
use outbox_testkit::wait_until;
use tokio_postgres::Client;

/// Planning counts as well, and nothing that a server does now and then by itself falls into a measurement.
const SETTINGS: [(&str, &str); 6] = [
    ("shared_preload_libraries", "pg_stat_statements"),
    ("pg_stat_statements.track_planning", "on"),
    ("wal_level", "replica"),
    ("full_page_writes", "off"),
    ("checkpoint_timeout", "1h"),
    ("autovacuum", "off"),
];

/// Statements that read counters do not count.
const COUNTERS: &str = "
    SELECT (pg_current_wal_insert_lsn() - '0/0')::float8 AS wal_bytes,
           (seq_tup_read + idx_tup_fetch)::float8 AS rows_read,
           (n_tup_ins + n_tup_upd + n_tup_del)::float8 AS rows_written,
           statements,
           blocks
    FROM pg_stat_user_tables
    CROSS JOIN (
        SELECT sum(calls)::float8 AS statements, sum(shared_blks_hit + shared_blks_read)::float8 AS blocks
        FROM pg_stat_statements
        JOIN pg_database ON pg_database.oid = dbid
        WHERE datname = current_database() AND query NOT LIKE '%pg_stat%'
    ) AS counted
    WHERE relname = 'outbox_events'";
const NAMES: [&str; 5] = ["wal_bytes", "rows_read", "rows_written", "statements", "blocks"];

/// A migrated database, and a connection to it.
pub(crate) struct Outbox {
    pub(crate) database: TestDatabase,
    pub(crate) sql: Client,
}

pub(crate) async fn counting_server() -> PostgresServer {
    PostgresServer::start_with(&SETTINGS).await.unwrap()
}

impl Outbox {
    pub(crate) async fn on(server: &PostgresServer) -> Self {
        let database = server.database().await;
        let sql = database.client().await;
        sql.batch_execute("CREATE EXTENSION pg_stat_statements").await.unwrap();
        let outbox = Self { database, sql };
        outbox.store().migrate_up().await.unwrap();
        outbox
    }

    pub(crate) fn store(&self) -> PostgresStore {
        PostgresStore::new(PostgresConfig::from_dsn(&self.database.dsn()).unwrap()).unwrap()
    }

    /// Inserts as many events of about 500 bytes.
    pub(crate) async fn fill(&self, events: u32) {
        self.fill_with(events, "status", "'PENDING'").await;
    }

    /// Inserts as many rows that have `values` in `columns`.
    pub(crate) async fn fill_with(&self, rows: u32, columns: &str, values: &str) {
        let insert = format!(
            "INSERT INTO outbox_events (topic, event_type, payload, {columns})
             SELECT 'events.player', 'registered', jsonb_build_object('number', n, 'text', repeat('x', 450)), {values}
             FROM generate_series(1, {rows}) AS n"
        );
        self.sql.batch_execute(&insert).await.unwrap();
    }

    /// Leaves no work of the fill to whoever reads the rows first.
    pub(crate) async fn vacuum(&self) {
        self.sql.batch_execute("VACUUM (ANALYZE) outbox_events").await.unwrap();
    }

    /// Returns what has been counted by now, by name: bytes of WAL of the whole server, and of this database rows read by
    /// scans, rows written, statements, and blocks that were read or written, in memory or not.
    ///
    /// Rows are counted when the connection that used them ends.
    pub(crate) async fn counters(&self) -> BTreeMap<&'static str, f64> {
        self.sql.batch_execute("SELECT pg_stat_force_next_flush()").await.unwrap();
        let row = self.sql.query_one(COUNTERS, &[]).await.unwrap();
        NAMES.map(|name| (name, row.get(name))).into()
    }

    /// Waits until the connections of stores are gone.
    pub(crate) async fn disconnected(&self) {
        let connected = "SELECT FROM pg_stat_activity
                         WHERE datname = current_database() AND application_name = 'outbox-relay'";
        wait_until("the connections of stores are gone", async || {
            self.sql.query(connected, &[]).await.unwrap().is_empty().then_some(())
        })
        .await;
    }
}
