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
mod keeping;
mod reach;
#[cfg(feature = "read-back")]
mod read_back;
mod replicas;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{FuturesOrdered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{Client, FromRedisValue, Pipeline, RedisResult, Value};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

pub use self::config::RedisConfig;
use self::error::{no_answer, refused};
use self::keeping::Keeping;
use self::reach::{Addresses, refused_cluster};
#[cfg(feature = "read-back")]
pub use self::read_back::RedisReader;
use self::replicas::{Replicas, wait};
use super::{About, Ack, BusError, BusErrorKind, BusPublisher, Patience, Receipt, Terms};
use crate::event::Event;
use crate::renew::Renewed;
use crate::store::HealthCheck;
use crate::troubles::Trouble;
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
/// Payload bytes that are answered together: what tells that bytes are moving on a slow way.
const PART_BYTES: usize = 32 * 1024;
/// A stream that is not there.
const PROBE: &str = "outbox-relay:probe";
/// How long a connection is believed in without a word from the server.
const BELIEVED: Duration = Duration::from_secs(1);
/// How long the server may take to say that it is there.
const ALIVE_WITHIN: Duration = Duration::from_secs(1);
/// How long a health check may take: a connection of its own is several questions, and the server may be far away.
const CHECK_TIMEOUT: Duration = Duration::from_millis(3_500);

/// Publishes to Redis Streams. Clones share their connections.
#[derive(Clone, Debug)]
pub struct RedisBus {
    inner: Arc<Inner>,
}

struct Inner {
    config: RedisConfig,
    client: Renewed<Client>,
    addresses: Addresses,
    idle: Mutex<Vec<Connection>>,
    replicas: Replicas,
    keeping: Keeping,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("config", &self.config).finish_non_exhaustive()
    }
}

struct Connection {
    link: MultiplexedConnection,
    message_bytes_max: u64,
    used: Instant,
}

impl RedisBus {
    /// Checks the URL. Connections are made when they are needed: an unreachable server is no error, a wrong URL is.
    pub async fn connect(config: RedisConfig) -> Result<Self, BusError> {
        let client = Renewed::new("the Redis URL", config.client()?);
        let (addresses, idle, replicas) = (Addresses::default(), Mutex::default(), Replicas::default());
        let keeping = Keeping::new(config.require_durable);
        Ok(Self { inner: Arc::new(Inner { config, client, addresses, idle, replicas, keeping }) })
    }

    /// Makes a connection, for a consumer in the same process. No answer is too late for it: it may block.
    pub async fn connection(&self) -> Result<MultiplexedConnection, BusError> {
        let deadline = Instant::now() + self.inner.config.publish_timeout;
        Ok(self.inner.connect(deadline).await?.link)
    }
}

#[async_trait]
impl BusPublisher for RedisBus {
    async fn publish(&self, events: &[Event]) -> Vec<Receipt> {
        let patience = Patience::new(events, Terms::of(self.inner.config.publish_timeout));
        self.publish_patiently(events, &patience).await
    }

    async fn publish_patiently(&self, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        let deadline = Instant::now() + self.inner.config.publish_timeout;
        let topics = events.iter().map(|event| event.topic.as_str());
        match self.inner.ready_for(topics, deadline).await {
            Ok(connection) => {
                patience.sending();
                self.inner.publish(connection, events, patience).await
            }
            Err(error) => same_for_all(events.len(), &error),
        }
    }

    fn system(&self) -> &'static str {
        "redis"
    }
}

impl Inner {
    /// Returns a connection over which something may be added, and knows whether that would be kept.
    async fn ready_for(&self, topics: impl Iterator<Item = &str>, deadline: Instant) -> Result<Connection, BusError> {
        let mut connection = self.ready(deadline).await?;
        self.keeping.look(&mut connection.link, topics, deadline).await?;
        Ok(connection)
    }

    /// Returns a connection over which something may be added.
    async fn ready(&self, deadline: Instant) -> Result<Connection, BusError> {
        if self.config.wait_replicas > 0 {
            let late =
                |_| BusError::new(BusErrorKind::Unavailable, "Redis does not say in time what its replicas have");
            timeout_at(deadline, self.replicas.catch_up(&self.config)).await.map_err(late)??;
        }
        self.connection(deadline).await
    }

    /// Takes a connection that nobody uses, or makes one.
    async fn connection(&self, deadline: Instant) -> Result<Connection, BusError> {
        let idle = self.lock_idle().pop();
        if let Some(mut connection) = idle {
            if connection.used.elapsed() < BELIEVED || connection.answers(deadline).await {
                return Ok(connection);
            }
            // The others have been idle for as long, and lead to the same server.
            self.lock_idle().clear();
        }
        self.connect(deadline).await
    }

    /// Makes a connection over which something may be added.
    async fn connect(&self, deadline: Instant) -> Result<Connection, BusError> {
        let mut connection = self.reach(deadline).await?;
        match self.replicas_missing(&mut connection.link, deadline).await {
            Some(short) => Err(BusError::new(BusErrorKind::Unavailable, short)),
            None => Ok(connection),
        }
    }

    /// Makes a connection to the server, whoever follows it.
    async fn reach(&self, deadline: Instant) -> Result<Connection, BusError> {
        let client = self.client.renew(self.config.client());
        let link = self.addresses.connect(&client, deadline).await?;
        let ask = async {
            // Side by side: a server that is far away takes long to answer each.
            let (mut one, mut other) = (link.clone(), link.clone());
            let size = async {
                let size = redis::cmd("CONFIG").arg("GET").arg("proto-max-bulk-len").query_async(&mut one).await;
                size as RedisResult<HashMap<String, u64>>
            };
            tokio::join!(size, async { redis::cmd("CLUSTER").arg("INFO").query_async(&mut other).await })
        };
        let late = |_| BusError::new(BusErrorKind::Unavailable, "Redis does not say in time what it is");
        let (asked, cluster) = timeout_at(deadline, ask).await.map_err(late)?;
        if let Some(problem) = refused_cluster(&cluster) {
            return Err(BusError::new(BusErrorKind::Unavailable, problem));
        }
        // Hosted servers do not let everybody ask.
        let server_max = asked.ok().and_then(|asked| asked.into_values().next()).unwrap_or(u64::MAX);
        let message_bytes_max = self.config.message_bytes_max.min(server_max);
        Ok(Connection { link, message_bytes_max, used: Instant::now() })
    }

    async fn publish(&self, connection: Connection, events: &[Event], patience: &Patience) -> Vec<Receipt> {
        let stored = self.replicas.have(events.iter().map(|event| event.id)).await;
        let mut batch = Batch::new(events, connection.message_bytes_max, &stored, &self.keeping);
        let asked = self.ask(&connection, &mut batch, patience);
        let asked = tokio::select! {
            biased;
            asked = asked => asked,
            () = patience.silent() => {
                Err(BusError::new(BusErrorKind::Unknown, format!("no answer within {}", patience.waited())))
            }
        };
        match asked {
            // After a failover the way to the new primary is a new connection.
            Ok(()) if batch.saw_outage => {}
            Ok(()) if !batch.behind.is_empty() => {
                let ids = batch.behind.iter().map(|place| events[*place].id).collect();
                self.replicas.are_behind(connection.link, ids).await;
            }
            Ok(()) => self.give_back(connection),
            // The others lead to the same server.
            Err(_) => self.lock_idle().clear(),
        }
        batch.receipts(asked.err())
    }

    /// Sends the parts of `batch` one after the other, all at once, and notes the answers as they come in.
    async fn ask(&self, connection: &Connection, batch: &mut Batch, patience: &Patience) -> Result<(), BusError> {
        let parts = std::mem::take(&mut batch.parts);
        let mut answers: FuturesOrdered<_> = parts.iter().map(|part| part.ask(connection.link.clone())).collect();
        while let Some((places, answers)) = answers.next().await {
            let answers = answers.map_err(|error| no_answer(&error))?;
            for (place, answer) in places.iter().zip(answers) {
                patience.answered(*place, answer.is_ok());
                batch.note(*place, answer.map(drop).map_err(|error| refused(&error)));
            }
        }
        if self.config.wait_replicas == 0 || parts.is_empty() {
            return Ok(());
        }
        let waited = wait(&mut connection.link.clone(), &self.config, self.config.wait_milliseconds()).await;
        if let Some(short) = waited.map_err(|error| no_answer(&error))? {
            batch.take_back(&BusError::new(BusErrorKind::Unknown, format!("stored on the primary: {short}")));
        }
        Ok(())
    }

    /// Says that too few replicas follow the primary now, if some have to.
    async fn replicas_missing(&self, link: &mut MultiplexedConnection, deadline: Instant) -> Option<String> {
        if self.config.wait_replicas == 0 {
            return None;
        }
        // A connection that wrote nothing asks only who is there: at once, as far as the server knows.
        let waited = timeout_at(deadline, wait(link, &self.config, 1)).await;
        waited.map_or_else(
            |_| Some("Redis does not say in time which replicas it has".to_owned()),
            |waited| waited.unwrap_or_else(|error| Some(no_answer(&error).chain())),
        )
    }

    fn give_back(&self, connection: Connection) {
        let connection = Connection { used: Instant::now(), ..connection };
        let mut idle = self.lock_idle();
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("no code panics while it holds the lock")
    }

    async fn check(&self, deadline: Instant) -> Result<(), String> {
        let mut connection = self.ready_for(std::iter::empty(), deadline).await.map_err(|error| error.chain())?;
        if let Some(short) = self.replicas_missing(&mut connection.link, deadline).await {
            return Err(short);
        }
        let mut pipeline = redis::pipe();
        pipeline.cmd("PING").cmd("ROLE");
        // Adds nothing where there is no such stream, and is refused, or held back, as an event would be.
        pipeline.cmd("XADD").arg(PROBE).arg("NOMKSTREAM").arg("*").arg("probe").arg("1");
        pipeline.cmd("CLUSTER").arg("INFO").ignore_errors();
        let mut answers: Vec<RedisResult<Value>> =
            pipeline.query_async(&mut connection.link).await.map_err(|error| no_answer(&error).chain())?;
        let cluster = answers.pop().map(|answer| answer.and_then(|info| Ok(String::from_redis_value(info)?)));
        if let Some(problem) = cluster.as_ref().and_then(refused_cluster) {
            return Err(problem);
        }
        for answer in answers {
            match answer {
                Ok(Value::Array(role)) => {
                    let role = role.into_iter().next().map(String::from_redis_value);
                    if let Some(Ok(role)) = role.filter(|role| !matches!(role, Ok(role) if role == "master")) {
                        return Err(format!("expected the primary, got a server in the role {role:?}"));
                    }
                }
                Ok(_) => {}
                // Who may not ask for the role, or not write there, may still publish, and so may one whose server is too old
                // for the question.
                Err(error) => {
                    let refused = refused(&error);
                    if refused.kind() == BusErrorKind::Unavailable {
                        return Err(refused.chain());
                    }
                }
            }
        }
        self.give_back(connection);
        Ok(())
    }
}

impl Connection {
    /// Says whether somebody is still there: servers and gateways drop what is idle, often without a word, and nothing is
    /// lost as long as nothing is sent.
    async fn answers(&mut self, deadline: Instant) -> bool {
        let deadline = deadline.min(Instant::now() + ALIVE_WITHIN);
        let answer = timeout_at(deadline, redis::cmd("PING").query_async::<Value>(&mut self.link)).await;
        // A server that refuses to answer is there.
        answer.is_ok_and(|answer| answer.map_or_else(|error| error.code().is_some(), |_| true))
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

    fn troubles(&self) -> Vec<Trouble> {
        self.inner.keeping.troubles()
    }
}

/// The commands for a batch, and what became of each event.
struct Batch {
    parts: Vec<Part>,
    receipts: Vec<Option<Receipt>>,
    /// Whether the server refused something that it would refuse to everybody.
    saw_outage: bool,
    /// What was added and too few replicas have.
    behind: Vec<usize>,
}

/// Commands that are answered together.
struct Part {
    pipeline: Pipeline,
    /// Of which event of the batch each command is.
    places: Vec<usize>,
    bytes: usize,
}

impl Batch {
    /// Makes commands of `events`, but for those that are `stored` already, or would not be kept.
    fn new(events: &[Event], message_bytes_max: u64, stored: &[Uuid], keeping: &Keeping) -> Self {
        let mut parts: Vec<Part> = Vec::new();
        let mut receipts = Vec::with_capacity(events.len());
        for (place, event) in events.iter().enumerate() {
            if stored.contains(&event.id) {
                receipts.push(Some(Ok(Ack::default())));
                continue;
            }
            if let Some(refused) = keeping.refuses(&event.topic) {
                receipts.push(Some(Err(refused)));
                continue;
            }
            if parts.last().is_none_or(|part| part.bytes >= PART_BYTES) {
                parts.push(Part::new());
            }
            let part = parts.last_mut().expect("there is one now");
            receipts.push(part.add(place, event, message_bytes_max).err().map(Err));
        }
        parts.retain(|part| !part.places.is_empty());
        Self { parts, receipts, saw_outage: false, behind: Vec::new() }
    }

    fn note(&mut self, place: usize, answer: Result<(), BusError>) {
        self.saw_outage |= answer.as_ref().is_err_and(|error| error.kind() == BusErrorKind::Unavailable);
        self.receipts[place] = Some(answer.map(|()| Ack::default()));
    }

    /// What was acknowledged is not certain all the same.
    fn take_back(&mut self, why: &BusError) {
        for (place, receipt) in
            self.receipts.iter_mut().enumerate().filter(|(_, receipt)| matches!(receipt, Some(Ok(_))))
        {
            *receipt = Some(Err(BusError::new(why.kind(), why.chain())));
            self.behind.push(place);
        }
    }

    /// Returns the receipts; those that were not answered failed for that reason.
    fn receipts(mut self, failed: Option<BusError>) -> Vec<Receipt> {
        let lost = BusError::new(BusErrorKind::Unknown, "the server did not answer this command");
        let failed = failed.unwrap_or(lost);
        self.receipts.iter_mut().for_each(|receipt| {
            receipt.get_or_insert_with(|| Err(BusError::new(failed.kind(), failed.chain())));
        });
        self.receipts.into_iter().flatten().collect()
    }
}

impl Part {
    fn new() -> Self {
        let mut pipeline = redis::pipe();
        // One refused entry must not hide what happened to the others.
        pipeline.ignore_errors();
        Self { pipeline, places: Vec::new(), bytes: 0 }
    }

    fn add(&mut self, place: usize, event: &Event, message_bytes_max: u64) -> Result<(), BusError> {
        add_entry(&mut self.pipeline, event, message_bytes_max)?;
        self.places.push(place);
        self.bytes += event.payload.len();
        Ok(())
    }

    async fn ask(&self, mut link: MultiplexedConnection) -> (&[usize], RedisResult<Vec<RedisResult<Value>>>) {
        (&self.places, self.pipeline.query_async(&mut link).await)
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
