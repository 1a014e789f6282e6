//! Redis Streams.
//!
//! Each topic is a stream whose key is the topic. An event becomes one entry, with these fields in this order:
//!
//! | field | value |
//! |---|---|
//! | `id` | the event's id; consumers deduplicate on it, since the server does not |
//! | `type` | the event type, which may be empty |
//! | `envelope` | the envelope, JSON |
//! | `traceparent`, `tracestate`, `baggage` | W3C trace headers, those that the carrier holds |
//! | `key` | the event's key, if it has one |
//! | `header.<name>` | each of its headers |
//!
//! Entries are only ever added: trimming would remove what no consumer has read, so it is left to their owner.
//!
//! # What an acknowledgement is worth
//!
#![doc = include_str!("acknowledgement.md")]
//!
//! # Connections
//!
//! TLS (`rediss://`) believes the operating system's authorities, or those of [`RedisConfig::tls`]. The URL and the
//! certificates are read again for each new connection, as far as they lie in files.
//!
//! An application that compiles more than one cryptographic provider
//! of rustls must install one as the default.

mod config;
#[cfg(feature = "doctor")]
pub mod diagnose;
mod error;
#[cfg(feature = "read-back")]
mod read_back;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::time::{Instant, timeout_at};

pub use self::config::RedisConfig;
use self::error::{no_answer, no_connection, refused};
#[cfg(feature = "read-back")]
pub use self::read_back::RedisReader;
use super::{About, Ack, BusError, BusErrorKind, BusPublisher, Receipt};
use crate::event::Event;
use crate::renew::Renewed;
use crate::store::HealthCheck;
use crate::wire;

/// What a person should know of this bus.
pub static ABOUT: About = About {
    title: "Redis Streams",
    acknowledgement: include_str!("acknowledgement.md"),
    #[cfg(feature = "doctor")]
    checks: &diagnose::CHECKS,
};

/// The most connections that are kept for later. Each batch has one for itself, so that a wait for replicas or a lost
/// connection is nobody else's trouble.
const IDLE_MAX: usize = 16;
/// How long a health check may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Publishes to Redis Streams. Clones share their connections.
#[derive(Clone, Debug)]
pub struct RedisBus {
    inner: Arc<Inner>,
}

struct Inner {
    config: RedisConfig,
    client: Renewed<Client>,
    idle: Mutex<Vec<Connection>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

struct Connection {
    link: MultiplexedConnection,
    message_bytes_max: u64,
}

impl RedisBus {
    /// Checks the URL. Connections are made when they are needed: an unreachable server is no error, a wrong URL is.
    pub async fn connect(config: RedisConfig) -> Result<Self, BusError> {
        let client = Renewed::new("the Redis URL", config.client()?);
        Ok(Self { inner: Arc::new(Inner { config, client, idle: Mutex::default() }) })
    }

    /// Makes a connection, for a consumer in the same process. No answer is too late for it: it may block.
    pub async fn connection(&self) -> Result<MultiplexedConnection, BusError> {
        Ok(self.inner.connect().await?.link)
    }
}

#[async_trait]
impl BusPublisher for RedisBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let deadline = Instant::now() + self.inner.config.publish_timeout;
        match self.inner.connection(deadline).await {
            Ok(connection) => self.inner.publish(connection, events, deadline).await,
            Err(error) => same_for_all(events.len(), &error),
        }
    }
}

impl Inner {
    /// Takes a connection that nobody uses, or makes one.
    async fn connection(&self, deadline: Instant) -> Result<Connection, BusError> {
        if let Some(connection) = self.lock_idle().pop() {
            return Ok(connection);
        }
        let late = |_| BusError::new(BusErrorKind::Unavailable, "cannot connect to Redis in time");
        timeout_at(deadline, self.connect()).await.map_err(late)?
    }

    async fn connect(&self) -> Result<Connection, BusError> {
        // The deadline of the batch is the only timeout.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let client = self.client.renew(self.config.client());
        let link = client.get_multiplexed_async_connection_with_config(&settings).await;
        let mut link = link.map_err(|error| no_connection(&error))?;
        let asked: RedisResult<HashMap<String, u64>> =
            redis::cmd("CONFIG").arg("GET").arg("proto-max-bulk-len").query_async(&mut link).await;
        // Hosted servers do not let everybody ask.
        let server_max = asked.ok().and_then(|asked| asked.into_values().next()).unwrap_or(u64::MAX);
        Ok(Connection { link, message_bytes_max: self.config.message_bytes_max.min(server_max) })
    }

    async fn publish(&self, mut connection: Connection, events: &[Event], deadline: Instant) -> Vec<Receipt> {
        let mut batch = Batch::new(events, connection.message_bytes_max);
        if batch.pipeline.is_empty() {
            self.give_back(connection);
            return batch.receipts(Vec::new());
        }
        if self.config.wait_replicas > 0 {
            batch.pipeline.cmd("WAIT").arg(self.config.wait_replicas).arg(self.config.wait_milliseconds());
        }
        let answers = batch.pipeline.query_async::<Vec<RedisResult<Value>>>(&mut connection.link);
        let failed = match timeout_at(deadline, answers).await {
            Ok(Ok(answers)) => return self.settle(connection, batch, answers),
            Ok(Err(error)) => no_answer(&error),
            Err(_) => {
                let seconds = self.config.publish_timeout.as_secs_f64();
                BusError::new(BusErrorKind::Unknown, format!("no answer within {seconds} s"))
            }
        };
        // The others lead to the same server.
        self.lock_idle().clear();
        batch.receipts(same_for_all(events.len(), &failed))
    }

    fn settle(&self, connection: Connection, batch: Batch, mut answers: Vec<RedisResult<Value>>) -> Vec<Receipt> {
        let waited = if self.config.wait_replicas > 0 { answers.pop() } else { None };
        let short = waited.and_then(|waited| self.replicas_missing(waited));
        let mut healthy = true;
        let receipts = answers.into_iter().map(|answer| match (answer, &short) {
            (Ok(_), None) => Ok(Ack::default()),
            (Ok(_), Some(short)) => Err(BusError::new(short.kind(), short.chain())),
            (Err(error), _) => {
                let error = refused(&error);
                // After a failover the way to the new primary is a new connection.
                healthy &= error.kind() != BusErrorKind::Unavailable;
                Err(error)
            }
        });
        let receipts = batch.receipts(receipts.collect());
        if healthy {
            self.give_back(connection);
        }
        receipts
    }

    fn replicas_missing(&self, waited: RedisResult<Value>) -> Option<BusError> {
        let expected = self.config.wait_replicas;
        let count = waited.and_then(|count| Ok(u32::from_redis_value(count)?));
        let got = match count {
            Ok(count) if count >= expected => return None,
            Ok(count) => count.to_string(),
            Err(error) => error.to_string(),
        };
        let message = format!("stored on the primary, but expected {expected} replicas to have it, got {got}");
        Some(BusError::new(BusErrorKind::Unknown, message))
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.lock_idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("no code panics while it holds the lock")
    }

    async fn check(&self, deadline: Instant) -> Result<(), String> {
        let mut connection = self.connection(deadline).await.map_err(|error| error.chain())?;
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING").cmd("ROLE").ignore_errors();
        let answers: Vec<RedisResult<Value>> =
            pipeline.query_async(&mut connection.link).await.map_err(|error| no_answer(&error).chain())?;
        for answer in answers {
            match answer {
                Ok(Value::Array(role)) => {
                    let role = role.into_iter().next().map(String::from_redis_value);
                    if let Some(Ok(role)) = role.filter(|role| !matches!(role, Ok(role) if role == "master")) {
                        return Err(format!("expected the primary, got a server in the role {role:?}"));
                    }
                }
                Ok(_) => {}
                // Who may not ask for the role may still publish.
                Err(error) if error.code() == Some("NOPERM") => {}
                Err(error) => return Err(refused(&error).chain()),
            }
        }
        self.give_back(connection);
        Ok(())
    }
}

#[async_trait]
impl HealthCheck for RedisBus {
    async fn check(&self) -> Result<(), String> {
        let deadline = Instant::now() + self.inner.config.publish_timeout.min(CHECK_TIMEOUT);
        timeout_at(deadline, self.inner.check(deadline))
            .await
            .unwrap_or_else(|_| Err("Redis did not answer in time".into()))
    }
}

/// The commands for a batch, and a place for each event that has none.
struct Batch {
    pipeline: Pipeline,
    rejected: Vec<Option<BusError>>,
}

impl Batch {
    fn new(events: &[Event], message_bytes_max: u64) -> Self {
        let mut pipeline = redis::pipe();
        // One refused entry must not hide what happened to the others.
        pipeline.ignore_errors();
        let rejected = events.iter().map(|event| add_entry(&mut pipeline, event, message_bytes_max).err()).collect();
        Self { pipeline, rejected }
    }

    /// Puts the receipts of those that were sent between those of the rejected ones.
    fn receipts(self, sent: Vec<Receipt>) -> Vec<Receipt> {
        let lost = || Err(BusError::new(BusErrorKind::Unknown, "the server did not answer this command"));
        let mut sent = sent.into_iter();
        let receipts = self.rejected.into_iter();
        receipts.map(|rejected| rejected.map_or_else(|| sent.next().unwrap_or_else(lost), Err)).collect()
    }
}

/// Adds one entry, unless the server would end the connection over it.
fn add_entry(pipeline: &mut Pipeline, event: &Event, message_bytes_max: u64) -> Result<(), BusError> {
    let envelope = wire::envelope(event);
    let bytes = envelope.len() as u64;
    if bytes > message_bytes_max {
        let message = format!("message too large: expected at most {message_bytes_max} bytes, got {bytes}");
        return Err(BusError::new(BusErrorKind::Rejected, message));
    }
    pipeline.cmd("XADD").arg(&event.topic).arg("*");
    pipeline.arg("id").arg(event.id.to_string()).arg("type").arg(&event.event_type);
    pipeline.arg("envelope").arg(&envelope[..]);
    for (name, value) in event.carrier.trace_headers() {
        pipeline.arg(name).arg(value);
    }
    if let Some(key) = &event.key {
        pipeline.arg("key").arg(key);
    }
    for (name, value) in &event.headers {
        pipeline.arg(format!("header.{name}")).arg(value);
    }
    Ok(())
}

fn same_for_all(count: usize, error: &BusError) -> Vec<Receipt> {
    (0..count).map(|_| Err(BusError::new(error.kind(), error.chain()))).collect()
}
