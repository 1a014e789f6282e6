use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::TryStreamExt;
use jiff::{RoundMode, Timestamp, TimestampRound, Unit};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite, Transaction};
use uuid::Uuid;

use super::SqliteStore;
use super::claim::{json, seconds};
use super::error::store_error;
use super::row::{read_attempts, read_id, read_text, read_time};
use crate::store::compose::compose;
use crate::store::dead_letters::{
    Action, AuditEntry, Batch, COUNTED_MAX, Count, CountedPart, Cursor, DeadLetter, DeadLetters, Detail, EXAMINED_MAX,
    Filter, GROUPED_MAX, Grouping, Groups, Listed, PAYLOAD_SHOWN_MAX, Page, Request, Span, error_class, hex,
};
use crate::store::{Status, StoreError};

const AUDIT: &str = include_str!("sql/audit.sql");
const DISCARD: &str = include_str!("sql/discard.sql");
const HISTORY: &str = include_str!("sql/history.sql");
const PAYLOAD: &str = include_str!("sql/payload.sql");
const REQUEUE: &str = include_str!("sql/requeue.sql");
const SHOW: &str = include_str!("sql/show.sql");

static DEAD_LETTER_COUNT: LazyLock<String> = LazyLock::new(|| filtered(include_str!("sql/dead_letter_count.sql")));
static DEAD_LETTER_ERRORS: LazyLock<String> = LazyLock::new(|| filtered(include_str!("sql/dead_letter_errors.sql")));
static DEAD_LETTERS: LazyLock<String> = LazyLock::new(|| filtered(include_str!("sql/dead_letters.sql")));
static EXAMINED: LazyLock<String> = LazyLock::new(|| filtered(include_str!("sql/examined.sql")));
static SEARCHED: LazyLock<String> = LazyLock::new(|| filtered(include_str!("sql/searched.sql")));
static SEARCHED_COUNT: LazyLock<String> = LazyLock::new(|| filtered(include_str!("sql/searched_count.sql")));
static SPAN: LazyLock<String> = LazyLock::new(|| filtered(include_str!("sql/span.sql")));

fn filtered(statement: &str) -> String {
    let fragments = [("is_meant", include_str!("sql/is_meant.sql")), ("is_named", include_str!("sql/is_named.sql"))];
    compose(statement, &fragments)
}

type Statement = Query<'static, Sqlite, SqliteArguments>;

#[async_trait]
impl DeadLetters for SqliteStore {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listed, StoreError> {
        let _place = self.question().await?;
        let list = async {
            let searched = match filter.is_searched_for() {
                true => self.searched(filter, page.after.as_ref(), EXAMINED_MAX).await?,
                false => None,
            };
            let statement = place(place(meant(&DEAD_LETTERS, filter), page.after.as_ref()), searched.as_ref());
            let rows = statement.bind(page.size() + 1).fetch_all(&self.inner.readers).await?;
            let letters = rows.iter().filter_map(|row| letter(row).transpose()).collect::<Result<_, _>>()?;
            Ok(Listed::page(letters, page.size(), searched))
        };
        list.await.map_err(|error| store_error("list dead letters", error))
    }

    async fn count(
        &self,
        filter: &Filter,
        window: Duration,
        after: Option<&Cursor>,
    ) -> Result<CountedPart, StoreError> {
        let _place = self.question().await?;
        let count = async {
            let next = self.searched(filter, after, COUNTED_MAX).await?;
            let statement = place(place(meant(&DEAD_LETTER_COUNT, filter), after), next.as_ref());
            let row = statement.bind(seconds(window)).fetch_one(&self.inner.readers).await?;
            let count = |column| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
            Ok(CountedPart { count: Count { letters: count(0)?, recent: count(1)? }, next })
        };
        count.await.map_err(|error| store_error("count dead letters", error))
    }

    async fn groups(&self, filter: &Filter, limit: u32) -> Result<Groups, StoreError> {
        let _place = self.question().await?;
        let mut grouping = Grouping::default();
        let group = async {
            let searched = sqlx::query_scalar::<_, i64>(&**SEARCHED_COUNT).bind(ids(filter)).bind(GROUPED_MAX);
            let searched = searched.fetch_one(&self.inner.readers).await?;
            let mut rows = meant(&DEAD_LETTER_ERRORS, filter).bind(GROUPED_MAX).fetch(&self.inner.readers);
            while let Some(row) = rows.try_next().await? {
                let last_error = read_text(row.try_get("last_error")?);
                let count: i64 = row.try_get("letters")?;
                grouping.add(last_error, count.unsigned_abs(), time(&row, "oldest")?, time(&row, "newest")?);
            }
            Ok(searched.unsigned_abs())
        };
        let searched = group.await.map_err(|error| store_error("group dead letters", error))?;
        Ok(grouping.finish(limit, searched))
    }

    async fn show(&self, id: Uuid) -> Result<Option<Detail>, StoreError> {
        let _place = self.question().await?;
        let statement = sqlx::query(SHOW).bind(id.to_string()).bind(PAYLOAD_SHOWN_MAX);
        let row = statement.fetch_optional(&self.inner.readers).await;
        let detail = row.and_then(|row| row.map_or(Ok(None), |row| detail(&row)));
        detail.map_err(|error| store_error("read an event", error))
    }

    async fn history(&self, id: Uuid) -> Result<Vec<AuditEntry>, StoreError> {
        let _place = self.question().await?;
        let rows = sqlx::query(HISTORY).bind(id.to_string()).fetch_all(&self.inner.readers).await;
        let entries = rows.and_then(|rows| rows.iter().map(audit_entry).collect());
        entries.map_err(|error| store_error("read the audit", error))
    }

    async fn change(&self, request: &Request, span: &Span) -> Result<Batch, StoreError> {
        let change = async {
            let mut tx = self.inner.writer.begin_with("BEGIN IMMEDIATE").await?;
            let batch = change(&mut tx, request, span).await?;
            tx.commit().await?;
            Ok(batch)
        };
        change.await.map_err(|error| store_error("change dead letters", error))
    }
}

impl SqliteStore {
    /// Returns how far a look that goes through at most `limit` letters comes, if there is anything beyond.
    async fn searched(
        &self,
        filter: &Filter,
        after: Option<&Cursor>,
        limit: u32,
    ) -> Result<Option<Cursor>, sqlx::Error> {
        let statement = place(sqlx::query(&**SEARCHED).bind(ids(filter)), after).bind(limit);
        statement.fetch_optional(&self.inner.readers).await?.map_or(Ok(None), |row| stop(&row))
    }
}

async fn change(tx: &mut Transaction<'_, Sqlite>, request: &Request, span: &Span) -> Result<Batch, sqlx::Error> {
    let end = examined(tx, request.filter(), span).await?;
    let up_to = end.as_ref().or(span.up_to.as_ref());
    let statement = place(place(meant(&SPAN, request.filter()), span.after.as_ref()), up_to);
    let statement = statement.bind(span.size()).bind(request.id().to_string()).bind(seconds(request.duplicate_window));
    let rows = statement.fetch_all(&mut **tx).await?;

    let mut batch = Batch { next: end, ..Batch::default() };
    let mut audited = Vec::new();
    for row in &rows {
        let Some(id) = read_id(row.try_get("id")?) else { continue };
        if rows.len() >= span.size() as usize {
            batch.next = Some(Cursor::new(read_text(row.try_get("created_at")?), id));
        }
        if row.try_get("is_done")? {
            continue;
        }
        batch.changed.push(id);
        batch.recent += u64::from(request.action() == Action::Requeue && row.try_get("is_recent")?);
        audited.push((id, before(tx, request.action(), id, row).await?.to_string()));
    }
    let (statement, after) = match request.action() {
        Action::Requeue => (REQUEUE, Some(r#"{"status":"PENDING","attempt_count":0,"last_error":""}"#)),
        Action::Discard => (DISCARD, None),
    };
    sqlx::query(statement).bind(json(&batch.changed)).execute(&mut **tx).await?;
    let audit = sqlx::query(AUDIT).bind(request.actor().to_owned()).bind(request.action().as_str());
    let audit = audit.bind(request.id().to_string()).bind(request.reason().to_owned()).bind(after);
    audit.bind(json(&audited)).execute(&mut **tx).await?;
    Ok(batch)
}

/// Returns how far a batch looks, if there is anything beyond.
async fn examined(
    tx: &mut Transaction<'_, Sqlite>,
    filter: &Filter,
    span: &Span,
) -> Result<Option<Cursor>, sqlx::Error> {
    let statement = place(place(sqlx::query(&**EXAMINED).bind(ids(filter)), span.after.as_ref()), span.up_to.as_ref());
    statement.bind(EXAMINED_MAX).fetch_optional(&mut **tx).await?.map_or(Ok(None), |row| stop(&row))
}

/// Reads the place at which a look stops. A row whose id names no event is none.
fn stop(row: &SqliteRow) -> Result<Option<Cursor>, sqlx::Error> {
    let created_at = read_text(row.try_get("created_at")?);
    Ok(read_id(row.try_get("id")?).map(|id| Cursor::new(created_at, id)))
}

/// What the audit keeps of a letter, see migration 0006.
async fn before(
    tx: &mut Transaction<'_, Sqlite>,
    action: Action,
    id: Uuid,
    row: &SqliteRow,
) -> Result<Value, sqlx::Error> {
    let text = |column| Ok::<_, sqlx::Error>(row.try_get::<Option<Vec<u8>>, _>(column)?.map(read_text));
    let mut before = json!({
        "status": Status::Failed,
        "attempt_count": row.try_get::<i64, _>("attempt_count")?,
        "last_error": text("last_error")?,
    });
    if action == Action::Discard {
        let payload: Vec<u8> = sqlx::query_scalar(PAYLOAD).bind(id.to_string()).fetch_one(&mut **tx).await?;
        before["topic"] = json!(text("topic")?);
        before["event_type"] = json!(text("event_type")?);
        before["event_key"] = json!(text("event_key")?);
        before["created_at"] = json!(text("created_at")?);
        before["payload_bytes"] = json!(payload.len());
        before["payload_sha256"] = json!(hex(&Sha256::digest(&payload)));
    }
    Ok(before)
}

/// Binds the first six parameters of every statement that takes a filter.
fn meant(statement: &'static str, filter: &Filter) -> Statement {
    sqlx::query(statement)
        .bind(ids(filter))
        .bind(filter.topic.clone())
        .bind(filter.event_type.clone())
        .bind(filter.error_class.clone())
        .bind(filter.created_since.map(milliseconds))
        .bind(filter.created_until.map(milliseconds))
}

fn ids(filter: &Filter) -> Option<String> {
    (!filter.ids.is_empty()).then(|| json(&filter.ids))
}

/// Writes a bound as the table's default writes times. What is between two milliseconds goes up: no row lies between.
fn milliseconds(bound: Timestamp) -> String {
    let up = TimestampRound::new().smallest(Unit::Millisecond).mode(RoundMode::Ceil);
    bound.round(up).unwrap_or(bound).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Binds a cursor.
fn place(statement: Statement, cursor: Option<&Cursor>) -> Statement {
    statement.bind(cursor.map(|cursor| cursor.position().to_owned())).bind(cursor.map(|cursor| cursor.id().to_string()))
}

/// Reads a letter; `None` for a row that no claim can have set aside, because its id names no event.
fn letter(row: &SqliteRow) -> Result<Option<DeadLetter>, sqlx::Error> {
    let Some(id) = read_id(row.try_get("id")?) else { return Ok(None) };
    let text = |column| row.try_get(column).map(read_text);
    let last_error = text("last_error")?;
    let available_at = time(row, "available_at")?;
    Ok(Some(DeadLetter {
        cursor: Cursor::new(text("created_at")?, id),
        id,
        topic: text("topic")?,
        event_type: text("event_type")?,
        event_key: row.try_get::<Option<Vec<u8>>, _>("event_key")?.map(read_text),
        created_at: read_time(row.try_get("created_at")?).unwrap_or(available_at),
        attempt_count: read_attempts(row.try_get("attempt_count")?),
        error_class: error_class(&last_error),
        last_error,
        last_attempt_by: available_at,
    }))
}

fn time(row: &SqliteRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    Ok(read_time(row.try_get(column)?).unwrap_or_default())
}

fn detail(row: &SqliteRow) -> Result<Option<Detail>, sqlx::Error> {
    let Some(letter) = letter(row)? else { return Ok(None) };
    let text = |column| row.try_get(column).map(read_text);
    let published_at: Option<Vec<u8>> = row.try_get("published_at")?;
    Ok(Some(Detail {
        letter,
        status: match row.try_get("status")? {
            "PENDING" => Status::Pending,
            "PUBLISHED" => Status::Published,
            _ => Status::Failed,
        },
        published_at: published_at.and_then(|published_at| read_time(&published_at)),
        payload: text("payload")?,
        payload_bytes: row.try_get::<i64, _>("payload_bytes")?.unsigned_abs(),
        headers: text("headers")?,
        carrier: text("carrier")?,
    }))
}

fn audit_entry(row: &SqliteRow) -> Result<AuditEntry, sqlx::Error> {
    let json = |column| {
        let text: Option<String> = row.try_get(column)?;
        Ok::<Value, sqlx::Error>(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
    };
    let id = |column| row.try_get(column).map(|id: &[u8]| read_id(id).unwrap_or_default());
    Ok(AuditEntry {
        id: row.try_get("id")?,
        at: time(row, "at")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        event_id: id("event_id")?,
        request_id: id("request_id")?,
        reason: row.try_get("reason")?,
        before: json("before")?,
        after: json("after")?,
    })
}
