//! D from PostgreSQL, by logical decoding; and what a producer's own transaction reads back.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use gamemesh_outbox::store::Status;
use gamemesh_outbox::store::dead_letters::Action;
use jiff::Timestamp;
use tokio_postgres::{Client, Transaction};
use uuid::Uuid;

use super::test_decoding::{Kind, Message, Value, parse};
use crate::history::{Change, Digest, Nanos, Op, Payload, Row, Stored};

/// Rows that one look at the slot asks for; whole transactions come in any case.
const CHANGES_MAX: i32 = 10_000;
/// What nobody may change of an event.
const CONTENT: [&str; 7] = ["topic", "event_type", "event_key", "carrier", "headers", "created_at", "payload"];

/// Follows `outbox_events` and `outbox_audit` through a logical slot. The server needs `wal_level = logical`, and its log
/// grows until the slot is read or dropped.
#[derive(Debug)]
pub struct ChangeLog {
    client: Client,
    slot: String,
    /// Where the last transaction that was returned was committed.
    seen: u64,
}

impl ChangeLog {
    /// Creates the slot, in the database of `client`: everything that is committed from now on is recorded.
    pub async fn create(client: Client, slot: &str) -> Result<Self> {
        let create = "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'test_decoding')";
        let created = client.query_one(create, &[&slot]).await.context("cannot create the slot")?;
        let seen = lsn(created.get(0))?;
        let log = Self { client, slot: slot.to_owned(), seen };
        log.prepare().await?;
        Ok(log)
    }

    /// Goes on with another connection, after the server came back. What it has forgotten to have shown already is left
    /// out.
    pub async fn reconnect(&mut self, client: Client) -> Result<()> {
        self.client = client;
        self.prepare().await
    }

    async fn prepare(&self) -> Result<()> {
        // The plugin writes times as its session does.
        Ok(self.client.batch_execute("SET timezone = 'UTC'; SET datestyle = 'ISO'; SET bytea_output = 'hex'").await?)
    }

    /// Returns what has been committed since the last call, in commit order. A commit that did not wait for the disk shows
    /// up once it is there.
    pub async fn poll(&mut self) -> Result<Vec<Change>> {
        let mut changes = Vec::new();
        loop {
            let before = self.seen;
            let rows = match self.page().await {
                Ok(rows) => rows,
                // What was read before counts; the next call fails with this.
                Err(_) if !changes.is_empty() => return Ok(changes),
                Err(error) => return Err(error).context("cannot read the slot"),
            };
            let mut transaction = Vec::new();
            for row in &rows {
                let (at, data) = (lsn(row.get(0))?, row.get::<_, &str>(1));
                self.read(at, data, &mut transaction, &mut changes)?;
            }
            if self.seen == before {
                return Ok(changes);
            }
        }
    }

    /// Returns the next page. The slot lets go of a page when the next one is asked for, so an answer that gets lost is
    /// given again; and once more what it was told to let go of, if the server forgot that in a crash.
    async fn page(&self) -> Result<Vec<tokio_postgres::Row>, tokio_postgres::Error> {
        let seen = format!("{:X}/{:X}", self.seen >> 32, self.seen & u64::from(u32::MAX));
        let let_go = "SELECT pg_replication_slot_advance($1, greatest(confirmed_flush_lsn, $2::text::pg_lsn))
                      FROM pg_replication_slots WHERE slot_name = $1";
        self.client.execute(let_go, &[&self.slot, &seen]).await?;
        let page = "SELECT lsn::text, data FROM pg_logical_slot_peek_changes(
                        $1, NULL, $2, 'include-timestamp', 'on', 'skip-empty-xacts', 'on')";
        self.client.query(page, &[&self.slot, &CHANGES_MAX]).await
    }

    /// Returns the rest, whatever is committed when it is called, and drops the slot.
    pub async fn finish(mut self) -> Result<Vec<Change>> {
        // Commits that did not wait for the disk are there after this. A commit that has written nothing itself, however
        // synchronous, would not take them along.
        self.client.batch_execute("SELECT pg_switch_wal()").await?;
        let changes = self.poll().await?;
        self.client.execute("SELECT pg_drop_replication_slot($1)", &[&self.slot]).await?;
        Ok(changes)
    }

    fn read(&mut self, lsn: u64, data: &str, transaction: &mut Vec<Op>, changes: &mut Vec<Change>) -> Result<()> {
        match parse(data)? {
            Message::Begin { .. } => transaction.clear(),
            Message::Change { table, kind, columns } => transaction.extend(op(table, kind, columns)?),
            Message::Commit { xid, at } => {
                let at = Nanos::try_from(timestamp(at)?.as_nanosecond()).context("a time before 1970")?;
                let ops = transaction.drain(..);
                if lsn > self.seen {
                    self.seen = lsn;
                    changes.extend(ops.map(|op| Change { at, lsn, xid, op }));
                }
            }
        }
        Ok(())
    }
}

/// Reads back, inside the transaction that inserted them, what the database made of these events.
pub async fn stored(tx: &Transaction<'_>, ids: &[Uuid]) -> Result<HashMap<Uuid, Stored>> {
    let sql = "SELECT id, payload::text, created_at FROM outbox_events WHERE id = ANY ($1)";
    let rows = tx.query(sql, &[&ids]).await?;
    let read = rows.iter().map(|row| {
        let payload = Payload::of(row.get::<_, &str>(1).as_bytes());
        (row.get(0), Stored { payload, created_at: row.get(2) })
    });
    Ok(read.collect())
}

/// Columns by name, those that are NULL or were not repeated included.
struct Columns<'a>(Vec<(std::borrow::Cow<'a, str>, Value<'a>)>);

impl Columns<'_> {
    fn get(&self, name: &str) -> Result<&Value<'_>> {
        let found = self.0.iter().find(|(column, _)| column == name);
        found.map(|(_, value)| value).with_context(|| format!("expected a column {name}"))
    }

    /// Returns the text of a column that is never NULL and never large.
    fn text(&self, name: &str) -> Result<&str> {
        match self.get(name)? {
            Value::Text(text) => Ok(text),
            other => bail!("column {name}: expected a value, got {other:?}"),
        }
    }

    fn parsed<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(&self, name: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().with_context(|| format!("column {name}: {text:?}"))
    }

    fn row(&self) -> Result<Row> {
        let status = self.text("status")?;
        let known = [Status::Pending, Status::Published, Status::Failed].into_iter().find(|s| s.as_str() == status);
        let published_at = match self.get("published_at")? {
            Value::Text(time) => Some(timestamp(time)?),
            _ => None,
        };
        let payload = match self.get("payload")? {
            Value::Text(payload) => Some(Payload::of(payload.as_bytes())),
            _ => None,
        };
        Ok(Row {
            id: self.parsed("id")?,
            status: known.with_context(|| format!("unknown status {status:?}"))?,
            attempt_count: self.parsed("attempt_count")?,
            created_at: timestamp(self.text("created_at")?)?,
            available_at: timestamp(self.text("available_at")?)?,
            published_at,
            payload,
            content: self.content()?,
        })
    }

    fn content(&self) -> Result<Option<Digest>> {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(2 * CONTENT.len());
        for name in CONTENT {
            match self.get(name)? {
                Value::Text(text) => parts.extend([&b"text"[..], text.as_bytes()]),
                Value::Null => parts.push(b"null"),
                Value::Unchanged => return Ok(None),
            }
        }
        Ok(Some(Digest::of_parts(parts)))
    }
}

fn op(table: &str, kind: Kind, columns: Vec<(std::borrow::Cow<'_, str>, Value<'_>)>) -> Result<Option<Op>> {
    let columns = Columns(columns);
    let is = |name: &str| table.split(", ").any(|table| table.rsplit('.').next() == Some(name));
    let (events, audit) = (is("outbox_events"), is("outbox_audit"));
    Ok(match kind {
        Kind::Truncate => {
            ensure!(!events && !audit, "{table} was truncated: what became of its rows is not known");
            None
        }
        Kind::Insert if events => Some(Op::Insert(columns.row()?)),
        Kind::Update if events => Some(Op::Update(columns.row()?)),
        Kind::Delete if events => Some(Op::Delete { id: columns.parsed("id")? }),
        Kind::Insert if audit => {
            let action = columns.text("action")?;
            let known = Action::ALL.into_iter().find(|known| known.as_str() == action);
            Some(Op::Audit {
                event_id: columns.parsed("event_id")?,
                request_id: columns.parsed("request_id")?,
                action: known.with_context(|| format!("unknown action {action:?}"))?,
            })
        }
        _ => None,
    })
}

/// Reads a position in the server's log: `16/B374D848`.
fn lsn(text: &str) -> Result<u64> {
    let (high, low) = text.split_once('/').with_context(|| format!("expected a position, got {text:?}"))?;
    Ok(u64::from_str_radix(high, 16)? << 32 | u64::from_str_radix(low, 16)?)
}

/// Reads a time as the server writes it in UTC. It knows years and infinities that nobody else does: the nearest will do.
fn timestamp(text: &str) -> Result<Timestamp> {
    let year_digits = text.find('-').unwrap_or_default();
    match text {
        "infinity" => Ok(Timestamp::MAX),
        "-infinity" => Ok(Timestamp::MIN),
        text if text.ends_with(" BC") => Ok(Timestamp::MIN),
        _ if year_digits > 4 => Ok(Timestamp::MAX),
        text => text.parse().with_context(|| format!("expected a time, got {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_positions_are_read_as_the_server_writes_them() {
        assert_eq!(lsn("16/B374D848").unwrap(), 0x16_B374_D848);
        assert!(lsn("16").is_err());
        let expected: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        assert_eq!(timestamp("2026-01-02 03:04:05.678901+00").unwrap(), expected);
        assert_eq!(timestamp("infinity").unwrap(), Timestamp::MAX);
        assert_eq!(timestamp("0044-03-15 12:00:00+00 BC").unwrap(), Timestamp::MIN);
        assert_eq!(timestamp("294276-12-31 23:59:59+00").unwrap(), Timestamp::MAX);
        assert!(timestamp("soon").is_err());
    }

    #[test]
    fn other_tables_are_nobodys_business_and_a_truncated_one_is_the_end() {
        assert_eq!(op("public.players", Kind::Insert, Vec::new()).unwrap(), None);
        assert_eq!(op("public.my_outbox_events", Kind::Insert, Vec::new()).unwrap(), None);
        assert!(op("public.players, public.outbox_events", Kind::Truncate, Vec::new()).is_err());
        assert!(op("public.outbox_events", Kind::Insert, Vec::new()).is_err());
    }
}
