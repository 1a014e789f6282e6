//! Facts about a server, as judgement needs them.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Row};

use crate::store::StoreError;
use crate::store::postgres::error::unavailable;
use crate::store::postgres::holder::Holder;
use crate::store::postgres::session::answer;
use crate::store::postgres::{PostgresStore, sql};

pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Locks that do not last so long are everybody's daily work.
const LOCKED_FOR: Duration = Duration::from_secs(1);
const CANNOT_LOOK: &str = "cannot examine the server";

/// The server and this session.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) version: String,
    pub(super) version_number: i32,
    pub(super) standby: bool,
    pub(super) fsync: bool,
    pub(super) full_page_writes: bool,
    pub(super) synchronous_commit: String,
    pub(super) read_only: bool,
    pub(super) autovacuum: bool,
    pub(super) connections_max: i64,
    pub(super) connections_used: i64,
    /// Where this client comes from; `None` for a local socket.
    pub(super) client: Option<String>,
    pub(super) tls: bool,
    pub(super) encoding: String,
}

/// Which backends answered two connections that were open at the same time.
#[derive(Clone, Debug, Default)]
pub(super) struct Pooler {
    /// The backends of the first connection's two transactions, and in between that of the second connection.
    pub(super) backends: [i32; 3],
    /// By how many seconds the first backend is older than the connection.
    pub(super) older: f64,
    /// What the pooler said to a transaction of more than one statement.
    pub(super) refused: Option<String>,
}

#[derive(Clone, Debug)]
pub(super) struct Index {
    pub(super) name: String,
    pub(super) usable: bool,
    pub(super) primary: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Privileges {
    pub(super) role: String,
    pub(super) missing: Vec<String>,
    /// The commands for which row security hides every event.
    pub(super) without_policy: Vec<String>,
    /// The policies of row security by which the role sees events only under a condition.
    pub(super) conditional_policies: Vec<String>,
}

/// A lock on the table that is in everybody's way.
#[derive(Clone, Debug)]
pub(super) struct TableLock {
    pub(super) holder: Holder,
    pub(super) mode: String,
    /// Whether it is held; otherwise somebody waits for it, and everybody else behind them.
    pub(super) granted: bool,
}

/// Who works at the table as the earlier relay does.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    pub(super) earlier: Vec<Peer>,
    /// How many sessions this role may not look into.
    pub(super) hidden: i64,
}

/// A session of somebody else.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) pid: i32,
    pub(super) role: String,
    pub(super) application: String,
    pub(super) client: String,
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) active: bool,
    pub(super) wal_bytes: Option<i64>,
    pub(super) transactions: Option<i64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) live: i64,
    pub(super) dead: i64,
    /// In seconds; `None` for never.
    pub(super) vacuumed_ago: Option<f64>,
    pub(super) autovacuum_disabled: bool,
}

impl PostgresStore {
    pub(super) async fn server(&self) -> Result<Server, StoreError> {
        let row = self.ask(sql::DIAGNOSE_SERVER, &[]).await?;
        read(row.first(), |row| {
            Ok(Server {
                version: row.try_get("version")?,
                version_number: row.try_get("version_number")?,
                standby: row.try_get("standby")?,
                fsync: row.try_get("fsync")?,
                full_page_writes: row.try_get("full_page_writes")?,
                synchronous_commit: row.try_get("synchronous_commit")?,
                read_only: row.try_get("read_only")?,
                autovacuum: row.try_get("autovacuum")?,
                connections_max: row.try_get("connections_max")?,
                connections_used: row.try_get("connections_used")?,
                client: row.try_get("client")?,
                tls: row.try_get("tls")?,
                encoding: row.try_get("encoding")?,
            })
        })
    }

    /// Returns by how many seconds the server's clock is ahead, and how far off that may be.
    pub(super) async fn clock_skew(&self) -> Result<(f64, f64), StoreError> {
        // A first question makes the connection, so that the second measures the way and nothing else.
        self.ask(sql::DIAGNOSE_SERVER, &[]).await?;
        let before = Timestamp::now();
        let asked = Instant::now();
        let rows = self.ask(sql::DIAGNOSE_SERVER, &[]).await?;
        let on_the_way = asked.elapsed().as_secs_f64();
        let clock: f64 = read(rows.first(), |row| row.try_get("clock"))?;
        let here = before.as_nanosecond() as f64 / 1e9 + on_the_way / 2.0;
        Ok((clock - here, on_the_way / 2.0))
    }

    /// Looks for a pooler with two connections of its own, since only fresh ones say how old a backend may be.
    pub(super) async fn pooler(&self) -> Result<Pooler, StoreError> {
        let begun = Instant::now();
        let first = self.connector.connect().await?;
        let looked = answer(CANNOT_LOOK, ANSWER_WITHIN, backend(&first)).await?;
        let (first_pid, age) = looked;
        let older = age - begun.elapsed().as_secs_f64();

        let second = self.connector.connect().await?;
        if let Err(error) = answer(CANNOT_LOOK, ANSWER_WITHIN, second.batch_execute("BEGIN")).await {
            let refused = Some(super::one_line(&error));
            return Ok(Pooler { backends: [first_pid; 3], older, refused });
        }
        // Held open, so that in transaction mode the first connection has to move.
        let (second_pid, _) = answer(CANNOT_LOOK, ANSWER_WITHIN, backend(&second)).await?;
        let (again, _) = answer(CANNOT_LOOK, ANSWER_WITHIN, backend(&first)).await?;
        answer(CANNOT_LOOK, ANSWER_WITHIN, second.batch_execute("COMMIT")).await?;
        Ok(Pooler { backends: [first_pid, second_pid, again], older, refused: None })
    }

    pub(super) async fn indexes(&self) -> Result<Vec<Index>, StoreError> {
        let rows = self.ask(sql::DIAGNOSE_INDEXES, &[]).await?;
        read_all(&rows, |row| {
            Ok(Index { name: row.try_get("name")?, usable: row.try_get("usable")?, primary: row.try_get("primary")? })
        })
    }

    pub(super) async fn privileges(&self, deletes: bool) -> Result<Privileges, StoreError> {
        let rows = self.ask(&sql::DIAGNOSE_PRIVILEGES, &[(&deletes as _, Type::BOOL)]).await?;
        read(rows.first(), |row| {
            Ok(Privileges {
                role: row.try_get("role")?,
                missing: row.try_get("missing")?,
                without_policy: row.try_get("without_policy")?,
                conditional_policies: row.try_get("conditional_policies")?,
            })
        })
    }

    pub(super) async fn holders(&self, longer_than: Duration) -> Result<Vec<Holder>, StoreError> {
        let seconds = longer_than.as_secs_f64();
        let rows = self.ask(sql::DIAGNOSE_HORIZON, &[(&seconds as _, Type::FLOAT8)]).await?;
        read_all(&rows, Holder::read)
    }

    pub(super) async fn locks(&self) -> Result<Vec<TableLock>, StoreError> {
        let rows = self.ask(sql::DIAGNOSE_LOCKS, &[(&LOCKED_FOR.as_secs_f64() as _, Type::FLOAT8)]).await?;
        read_all(&rows, |row| {
            Ok(TableLock { holder: Holder::read(row)?, mode: row.try_get("mode")?, granted: row.try_get("granted")? })
        })
    }

    pub(super) async fn fleet(&self) -> Result<Fleet, StoreError> {
        let rows = self.ask(sql::DIAGNOSE_FLEET, &[]).await?;
        let peers = read_all(&rows, |row| {
            let Some(pid) = row.try_get("pid")? else { return Ok(None) };
            let (role, application) = (row.try_get("role")?, row.try_get("application")?);
            Ok(Some(Peer { pid, role, application, client: row.try_get("client")? }))
        })?;
        let hidden = read_all(&rows, |row| row.try_get::<_, i64>("hidden"))?.into_iter().sum();
        Ok(Fleet { earlier: peers.into_iter().flatten().collect(), hidden })
    }

    pub(super) async fn slots(&self) -> Result<Vec<Slot>, StoreError> {
        let rows = self.ask(sql::DIAGNOSE_SLOTS, &[]).await?;
        read_all(&rows, |row| {
            Ok(Slot {
                name: row.try_get("name")?,
                kind: row.try_get("kind")?,
                active: row.try_get("active")?,
                wal_bytes: row.try_get("wal_bytes")?,
                transactions: row.try_get("transactions")?,
            })
        })
    }

    pub(super) async fn table(&self) -> Result<Option<Table>, StoreError> {
        let rows = self.ask(sql::DIAGNOSE_TABLE, &[]).await?;
        let tables = read_all(&rows, |row| {
            Ok(Table {
                live: row.try_get("live")?,
                dead: row.try_get("dead")?,
                vacuumed_ago: row.try_get("vacuumed_ago")?,
                autovacuum_disabled: row.try_get("autovacuum_disabled")?,
            })
        })?;
        Ok(tables.first().copied())
    }

    async fn ask(
        &self,
        statement: &str,
        params: &[(&(dyn tokio_postgres::types::ToSql + Sync), Type)],
    ) -> Result<Vec<Row>, StoreError> {
        let session = self.session().await?;
        let rows = answer(CANNOT_LOOK, ANSWER_WITHIN, session.client().query_typed(statement, params)).await?;
        session.give_back();
        Ok(rows)
    }
}

async fn backend(client: &Client) -> Result<(i32, f64), Error> {
    let row = client.query_typed_one(sql::DIAGNOSE_CONNECTION, &[]).await?;
    Ok((row.try_get("pid")?, row.try_get("age")?))
}

fn read<T>(row: Option<&Row>, read: impl FnOnce(&Row) -> Result<T, Error>) -> Result<T, StoreError> {
    let row = row.expect("a SELECT without FROM returns one row");
    read(row).map_err(|error| unavailable(CANNOT_LOOK, error))
}

fn read_all<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, Error>) -> Result<Vec<T>, StoreError> {
    rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| unavailable(CANNOT_LOOK, error))
}
