use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

use super::error::Failure;
use super::params::micros;
use super::readers::READ_WITHIN;
use super::server_time::ServerTime;
use super::{PostgresStore, sql};
use crate::crash_point::crash_point;
use crate::store::dead_letters::{
    Action, AuditEntry, Batch, COUNTED_MAX, Count, CountedPart, Cursor, DeadLetter, DeadLetters, Detail, EXAMINED_MAX,
    Filter, GROUPED_MAX, Group, Groups, Listed, PAYLOAD_SHOWN_MAX, Page, Request, Span, error_class,
};
use crate::store::{Status, StoreError, StoreErrorKind};

type Param<'a> = (&'a (dyn ToSql + Sync), Type);

#[async_trait]
impl DeadLetters for PostgresStore {
    async fn list(&self, filter: &Filter, page: &Page) -> Result<Listed, StoreError> {
        let (after, limit) = (CursorParams::of(page.after.as_ref())?, i64::from(page.size()) + 1);
        let examined = if filter.is_searched_for() { i64::from(EXAMINED_MAX) } else { limit };
        let mut params = meant(filter);
        params.extend(after.params());
        params.extend([(&limit as _, Type::INT8), (&examined as _, Type::INT8)]);
        let rows = self.readers.read("cannot list dead letters", &sql::DEAD_LETTERS, &params).await?;
        let letters = rows.iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some()).map(letter).collect();
        let examined_to = rows.first().and_then(|row| cursor(row, "examined_created_at", "examined_id"));
        Ok(Listed::page(letters, page.size(), examined_to))
    }

    async fn count(
        &self,
        filter: &Filter,
        window: Duration,
        after: Option<&Cursor>,
    ) -> Result<CountedPart, StoreError> {
        let (after, window, examined) = (CursorParams::of(after)?, micros(window), i64::from(COUNTED_MAX));
        let mut params = meant(filter);
        params.extend(after.params());
        params.extend([(&window as _, Type::INT8), (&examined as _, Type::INT8)]);
        let rows = self.readers.read("cannot count dead letters", &sql::DEAD_LETTER_COUNT, &params).await?;
        let count = |column| rows.first().map_or(0, |row| row.get::<_, i64>(column).unsigned_abs());
        let next = rows.first().and_then(|row| cursor(row, "next_created_at", "next_id"));
        Ok(CountedPart { count: Count { letters: count("letters"), recent: count("recent") }, next })
    }

    async fn groups(&self, filter: &Filter, limit: u32) -> Result<Groups, StoreError> {
        let (examined, limit) = (i64::from(GROUPED_MAX), i64::from(limit));
        let mut params = meant(filter);
        params.extend([(&examined as _, Type::INT8), (&limit as _, Type::INT8)]);
        let rows = self.readers.read("cannot group dead letters", &sql::DEAD_LETTER_GROUPS, &params).await?;
        let examined = rows.first().map_or(0, |row| row.get::<_, i64>("examined").unsigned_abs());
        let groups = rows.iter().filter(|row| row.get::<_, Option<i64>>("letters").is_some()).map(group).collect();
        Ok(Groups { groups, examined, complete: examined < u64::from(GROUPED_MAX) })
    }

    async fn show(&self, id: Uuid) -> Result<Option<Detail>, StoreError> {
        let characters = i32::try_from(PAYLOAD_SHOWN_MAX).unwrap_or(i32::MAX);
        let question = self.readers.question(READ_WITHIN).await?;
        let show = async |readable: bool| {
            let params = [(&id as _, Type::UUID), (&characters as _, Type::INT4), (&readable as _, Type::BOOL)];
            question.read(sql::SHOW, &params).await
        };
        let show = async {
            match show(true).await {
                Err(error) if error.is_of_a_row() => {
                    question.client().batch_execute("ROLLBACK").await?;
                    show(false).await
                }
                rows => rows,
            }
        };
        let rows = question.wait(show).await;
        let rows = question.end("cannot read an event", rows)?;
        Ok(rows.first().map(detail))
    }

    async fn history(&self, id: Uuid) -> Result<Vec<AuditEntry>, StoreError> {
        let rows = self.readers.read("cannot read the audit", sql::HISTORY, &[(&id, Type::UUID)]).await?;
        Ok(rows.iter().map(audit_entry).collect())
    }

    async fn change(&self, request: &Request, span: &Span) -> Result<Batch, StoreError> {
        const DOING: &str = "cannot change dead letters";
        const EXAMINED: i64 = EXAMINED_MAX as i64;
        let (after, up_to) = (CursorParams::of(span.after.as_ref())?, CursorParams::of(span.up_to.as_ref())?);
        let (limit, id, window) = (i64::from(span.size()), request.id(), micros(request.duplicate_window));
        let (actor, reason) = (request.actor(), request.reason());
        let mut params = meant(request.filter());
        params.extend(after.params());
        params.extend(up_to.params());
        params.extend([(&limit as _, Type::INT8), (&id as _, Type::UUID)]);
        params.extend([(&actor as _, Type::TEXT), (&reason as _, Type::TEXT), (&EXAMINED as _, Type::INT8)]);
        let question = self.readers.change().await?;
        let change = async |statement: &str, last: Param<'_>| {
            let params = [&params[..], &[last]].concat();
            transaction(question.client(), statement, &params).await
        };
        let change = async {
            if request.action() == Action::Requeue {
                return change(&sql::REQUEUE, (&window, Type::INT8)).await;
            }
            match change(&sql::DISCARD, (&true, Type::BOOL)).await {
                Err(error) if error.is_of_a_row() => {
                    question.client().batch_execute("ROLLBACK").await?;
                    change(&sql::DISCARD, (&false, Type::BOOL)).await
                }
                rows => rows,
            }
        };
        let rows = question.wait(change).await;
        let rows = question.end(DOING, rows)?;
        rows.first().map(|row| batch(row, request.action())).ok_or_else(|| unusable(DOING))
    }
}

/// Runs the one statement in a transaction whose settings end with it. If its answer never comes, the connection is
/// closed and the server rolls back: what was not confirmed has not happened, unless the commit's own answer got lost.
async fn transaction(client: &Client, statement: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
    const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SET LOCAL statement_timeout = '25s'; \
                         SET LOCAL lock_timeout = '5s'; SET LOCAL idle_in_transaction_session_timeout = '30s'";
    client.batch_execute(BEGIN).await?;
    let rows = client.query_typed(statement, params).await?;
    crash_point("change.written");
    client.batch_execute("COMMIT").await?;
    crash_point("change.committed");
    Ok(rows)
}

/// The first six parameters of every statement that takes a filter.
fn meant(filter: &Filter) -> Vec<Param<'_>> {
    const ANY: &Option<Vec<Uuid>> = &None;
    let ids: &(dyn ToSql + Sync) = if filter.ids.is_empty() { ANY } else { &filter.ids };
    vec![
        (ids, Type::UUID_ARRAY),
        (&filter.topic, Type::TEXT),
        (&filter.event_type, Type::TEXT),
        (&filter.error_class, Type::TEXT),
        (&filter.created_since, Type::TIMESTAMPTZ),
        (&filter.created_until, Type::TIMESTAMPTZ),
    ]
}

/// A cursor as two parameters.
struct CursorParams {
    created_at: Option<ServerTime>,
    id: Option<Uuid>,
}

impl CursorParams {
    fn of(cursor: Option<&Cursor>) -> Result<Self, StoreError> {
        let created_at = cursor.map(ServerTime::of).transpose();
        let refused = |error| StoreError::new(StoreErrorKind::Refused, "cannot read the cursor").with_source(error);
        let created_at = created_at.map_err(refused)?;
        Ok(Self { created_at, id: cursor.map(Cursor::id) })
    }

    fn params(&self) -> [Param<'_>; 2] {
        [(&self.created_at, Type::TIMESTAMPTZ), (&self.id, Type::UUID)]
    }
}

fn unusable(doing: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Unusable, doing)
}

/// Reads a place, if there is one.
fn cursor(row: &Row, created_at: &str, id: &str) -> Option<Cursor> {
    let (created_at, id) = (row.get::<_, Option<ServerTime>>(created_at)?, row.get::<_, Option<Uuid>>(id)?);
    Some(created_at.cursor(id))
}

fn letter(row: &Row) -> DeadLetter {
    let (id, created_at): (Uuid, ServerTime) = (row.get("id"), row.get("created_at"));
    let last_error = text(row, "last_error");
    DeadLetter {
        cursor: created_at.cursor(id),
        id,
        topic: text(row, "topic"),
        event_type: text(row, "event_type"),
        event_key: row.try_get("event_key").unwrap_or_default(),
        created_at: created_at.nearest(),
        attempt_count: row.get("attempt_count"),
        error_class: error_class(&last_error),
        last_error,
        last_attempt_by: row.get::<_, ServerTime>("available_at").nearest(),
    }
}

/// Reads text that is there. Where the database's encoding lets bytes through that are no text, nothing can be shown.
fn text(row: &Row, column: &str) -> String {
    row.try_get(column).unwrap_or_else(|_| "(not UTF-8)".to_owned())
}

fn group(row: &Row) -> Group {
    Group {
        error_class: text(row, "error_class"),
        count: row.get::<_, i64>("letters").unsigned_abs(),
        example: text(row, "example"),
        oldest: time(row, "oldest"),
        newest: time(row, "newest"),
    }
}

fn time(row: &Row, column: &str) -> Timestamp {
    row.get::<_, ServerTime>(column).nearest()
}

fn detail(row: &Row) -> Detail {
    Detail {
        letter: letter(row),
        status: match row.get("status") {
            "PENDING" => Status::Pending,
            "PUBLISHED" => Status::Published,
            _ => Status::Failed,
        },
        published_at: row.get::<_, Option<ServerTime>>("published_at").map(ServerTime::nearest),
        payload: text(row, "payload"),
        payload_bytes: row.get::<_, i64>("payload_bytes").unsigned_abs(),
        headers: text(row, "headers"),
        carrier: text(row, "carrier"),
    }
}

fn audit_entry(row: &Row) -> AuditEntry {
    let json = |column| {
        let text: Option<String> = row.get(column);
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    };
    AuditEntry {
        id: row.get("id"),
        at: time(row, "at"),
        actor: row.get("actor"),
        action: row.get("action"),
        event_id: row.get("event_id"),
        request_id: row.get("request_id"),
        reason: row.get("reason"),
        before: json("before"),
        after: json("after"),
    }
}

fn batch(row: &Row, action: Action) -> Batch {
    Batch {
        changed: row.get("changed"),
        recent: match action {
            Action::Requeue => row.get::<_, i64>("recent").unsigned_abs(),
            // What nobody will send meets no copy of itself.
            Action::Discard => 0,
        },
        next: cursor(row, "next_created_at", "next_id"),
    }
}
