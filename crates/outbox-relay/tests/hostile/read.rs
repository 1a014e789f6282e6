//! Reading back, by no code of the relay's, what is in the table and what arrived.

use std::collections::BTreeMap;
use std::path::Path;

use async_nats::jetstream;
use async_nats::jetstream::consumer::AckPolicy;
use futures_util::StreamExt;
use jiff::Timestamp;
use outbox_testkit::servers::{NatsServer, RedisServer};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Row as _, SqliteConnection};
use tokio_postgres::Client;
use uuid::Uuid;

use super::expect::{BusKind, StoreKind};

type Map = BTreeMap<String, String>;

const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// A message as its consumer has it.
#[derive(Debug)]
pub(super) struct Message {
    pub id: Uuid,
    subject: String,
    body: String,
    headers: Map,
    /// Only Redis carries it.
    key: Option<String>,
}

/// What became of a row.
#[derive(Debug)]
pub(super) struct State {
    pub status: String,
    pub attempts: i64,
    pub error: String,
}

/// A row as it was inserted, as far as it can be read.
#[derive(Debug)]
pub(super) struct Event {
    id: Uuid,
    topic: String,
    event_type: String,
    payload: String,
    created_at_us: i64,
    headers: Map,
    pub carrier: Option<Map>,
    key: Option<String>,
}

/// The outbox, by a connection of the test's own.
pub(super) enum Table {
    Postgres(Client),
    Sqlite(SqliteConnection),
}

impl Table {
    pub(super) async fn open_sqlite(folder: &Path) -> Self {
        let options = SqliteConnectOptions::new().filename(folder.join("outbox.db"));
        Self::Sqlite(options.busy_timeout(crate::program::PATIENCE).connect().await.unwrap())
    }

    pub(super) fn kind(&self) -> StoreKind {
        match self {
            Self::Postgres(_) => StoreKind::Postgres,
            Self::Sqlite(_) => StoreKind::Sqlite,
        }
    }

    /// Says how this database puts a refusal that has this SQLSTATE in PostgreSQL.
    pub(super) fn refusal(&self, what: &'static str) -> &'static str {
        match (self, what) {
            (Self::Sqlite(_), "23502") => "NOT NULL constraint failed",
            (Self::Sqlite(_), "23505") => "UNIQUE constraint failed",
            (Self::Sqlite(_), "23514") => "CHECK constraint failed",
            _ => what,
        }
    }

    pub(super) async fn insert(&mut self, sql: &str) -> Result<(), String> {
        match self {
            Self::Postgres(client) => client.batch_execute(sql).await.map_err(|error| match error.as_db_error() {
                Some(error) => format!("{} {}", error.code().code(), error.message()),
                None => error.to_string(),
            }),
            Self::Sqlite(connection) => {
                let inserted = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await;
                inserted.map(drop).map_err(|error| error.to_string())
            }
        }
    }

    pub(super) async fn count(&mut self, condition: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM outbox_events WHERE {condition}");
        match self {
            Self::Postgres(client) => client.query_one(&sql, &[]).await.unwrap().get(0),
            Self::Sqlite(connection) => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap(),
        }
    }

    pub(super) async fn pending(&mut self) -> Vec<Uuid> {
        const SQL: &str = "SELECT CAST(id AS TEXT) FROM outbox_events WHERE status = 'PENDING' ORDER BY id";
        let ids: Vec<String> = match self {
            Self::Postgres(client) => client.query(SQL, &[]).await.unwrap().iter().map(|row| row.get(0)).collect(),
            Self::Sqlite(connection) => sqlx::query_scalar(SQL).fetch_all(connection).await.unwrap(),
        };
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    pub(super) async fn state(&mut self, id: Uuid) -> State {
        let sql = format!(
            "SELECT status, CAST(attempt_count AS BIGINT) AS attempts, last_error FROM outbox_events WHERE id = '{id}'"
        );
        match self {
            Self::Postgres(client) => {
                let row = client.query_one(&sql, &[]).await.unwrap();
                State { status: row.get(0), attempts: row.get(1), error: row.get(2) }
            }
            Self::Sqlite(connection) => {
                let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap();
                State { status: row.get(0), attempts: row.get(1), error: row.get(2) }
            }
        }
    }

    pub(super) async fn event(&mut self, id: Uuid) -> Event {
        let text = "topic, event_type, CAST(payload AS TEXT), CAST(headers AS TEXT)";
        // What is not a map of strings, or too large for one, is no trace context.
        let (carrier, created_at) = match self {
            Self::Postgres(_) => (
                "CASE WHEN pg_column_size(carrier) < 100000 AND carrier::jsonb @> '{}' \
                   AND NOT jsonb_path_exists(carrier, '$.* ? (@.type() != \"string\")') THEN carrier::text END",
                "(extract(epoch FROM created_at) * 1000000)::bigint::text",
            ),
            Self::Sqlite(_) => ("carrier", "created_at"),
        };
        let sql = format!("SELECT {text}, {carrier}, {created_at}, event_key FROM outbox_events WHERE id = '{id}'");
        let columns: Vec<Option<String>> = match self {
            Self::Postgres(client) => {
                let row = client.query_one(&sql, &[]).await.unwrap();
                (0..7).map(|column| row.get(column)).collect()
            }
            Self::Sqlite(connection) => {
                let row = sqlx::query(AssertSqlSafe(sql)).fetch_one(connection).await.unwrap();
                (0..7).map(|column| row.get(column)).collect()
            }
        };
        let [topic, event_type, payload, headers, carrier, created_at, key] = columns.try_into().unwrap();
        let created_at = created_at.unwrap();
        Event {
            id,
            topic: topic.unwrap(),
            event_type: event_type.unwrap(),
            payload: payload.unwrap(),
            created_at_us: created_at
                .parse()
                .unwrap_or_else(|_| created_at.parse::<Timestamp>().unwrap().as_microsecond()),
            headers: serde_json::from_str(&headers.unwrap()).unwrap(),
            carrier: carrier.and_then(|carrier| serde_json::from_str(&carrier).ok()),
            key,
        }
    }
}

impl Event {
    /// Says in what `message` differs from what was inserted, if it does.
    pub(super) fn compare(&self, message: &Message, bus: BusKind) -> Result<(), String> {
        let subject = match self.event_type.as_str() {
            "" => self.topic.clone(),
            event_type => format!("{}.{event_type}", self.topic),
        };
        same("subject", &subject, &message.subject)?;

        let time_begins = message.body.find(r#""timestamp":""#).ok_or("no timestamp")? + r#""timestamp":""#.len();
        let time: String = message.body[time_begins..].chars().take_while(|c| *c != '"').collect();
        let parsed: Timestamp = time.parse().map_err(|error| format!("{time}: {error}"))?;
        same("time", &self.created_at_us, &parsed.as_microsecond())?;
        // RFC 3339 has years of four digits.
        same("shape of the time", &(Some('-'), Some('Z')), &(time.chars().nth(4), time.chars().last()))?;

        let json = |text: &str| serde_json::to_string(text).unwrap();
        let carrier = self.carrier.as_ref().filter(|carrier| !carrier.is_empty());
        let carrier = carrier
            .map_or(String::new(), |carrier| format!(",\"carrier\":{}", serde_json::to_string(carrier).unwrap()));
        let body = format!(
            "{{\"id\":\"{}\",\"type\":{},\"timestamp\":\"{time}\",\"payload\":{}{carrier}}}",
            self.id,
            json(&self.event_type),
            self.payload
        );
        same("body", &body, &message.body)?;

        let fits_a_header = |value: &String| !value.contains(char::is_control) && value.trim() == *value;
        let mut headers = self.headers.clone();
        if let (BusKind::Nats, Some(key)) = (bus, self.key.as_ref().filter(|key| fits_a_header(key))) {
            headers.insert("Event-Key".to_owned(), key.clone());
        }
        for name in TRACE_HEADERS {
            let entries = self.carrier.iter().flatten();
            let value = entries.into_iter().find(|(entry, _)| entry.eq_ignore_ascii_case(name)).map(|(_, value)| value);
            if let Some(value) = value.filter(|value| fits_a_header(value)) {
                headers.insert(name.to_owned(), value.clone());
            }
        }
        same("headers", &headers, &message.headers)?;
        match bus {
            BusKind::Nats => Ok(()),
            BusKind::Redis => same("key", &self.key, &message.key),
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, expected: &T, got: &T) -> Result<(), String> {
    let differ = || format!("{what}: expected {:.300}, got {:.300}", format!("{expected:?}"), format!("{got:?}"));
    (expected == got).then_some(()).ok_or_else(differ)
}

/// Reads the whole stream from its first message.
pub(super) async fn messages_of_nats(server: &NatsServer) -> Vec<Message> {
    let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = jetstream.get_stream("EVENTS").await.unwrap();
    let count = stream.cached_info().state.messages as usize;
    let config = jetstream::consumer::pull::Config { ack_policy: AckPolicy::None, ..Default::default() };
    let consumer = stream.create_consumer(config).await.unwrap();
    let messages = consumer.messages().await.unwrap().take(count).map(|message| {
        let message = message.unwrap();
        let headers = message.headers.clone().unwrap();
        let mut all = Map::new();
        for (name, values) in headers.iter() {
            let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
            all.insert(name.to_string(), values.join(" and "));
        }
        Message {
            id: all.remove("Nats-Msg-Id").unwrap().parse().unwrap(),
            subject: message.subject.to_string(),
            body: String::from_utf8(message.payload.to_vec()).unwrap(),
            headers: all,
            key: None,
        }
    });
    messages.collect().await
}

/// Reads every stream that there is.
pub(super) async fn messages_of_redis(server: &RedisServer) -> Vec<Message> {
    let client = redis::Client::open(server.url()).unwrap();
    // Reading a whole stream takes longer than the client's default of half a second.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await.unwrap();
    let topics: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    let mut messages = Vec::new();
    for topic in topics {
        let mut range = redis::cmd("XRANGE");
        range.arg(&topic).arg("-").arg("+");
        let reply: redis::streams::StreamRangeReply = range.query_async(&mut connection).await.unwrap();
        messages.extend(reply.ids.into_iter().map(|entry| {
            let mut fields: Map = entry.map.keys().map(|name| (name.clone(), entry.get(name).unwrap())).collect();
            let event_type = fields.remove("type").unwrap();
            let subject = if event_type.is_empty() { topic.clone() } else { format!("{topic}.{event_type}") };
            let (id, body) = (fields.remove("id").unwrap().parse().unwrap(), fields.remove("envelope").unwrap());
            let key = fields.remove("key");
            let header = |(name, value): (String, String)| {
                (name.strip_prefix("header.").map_or_else(|| name.clone(), str::to_owned), value)
            };
            Message { id, subject, body, headers: fields.into_iter().map(header).collect(), key }
        }));
    }
    messages
}
