//! The bus as a consumer sees it: how far it is, what it stored and when.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, ErrorCode};
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamReadReply};
use redis::{RedisResult, Value};
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::Instant;
use uuid::Uuid;

use super::{STREAM, TOPIC, processes};
use crate::assemble::AnyBus;
use crate::report::CommandError;

/// Entries read at a time.
const PAGE: usize = 1000;
/// How long Redis lets a reader wait.
const BLOCK: Duration = Duration::from_secs(1);

/// How far the bus is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// Messages stored.
    pub messages: u64,
    /// When the last of them was, in seconds by the bus's clock since 1970.
    pub last_stored: f64,
}

/// One message, as a consumer met it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    pub id: Uuid,
    /// When the bus stored it, in seconds by its clock since 1970.
    pub stored: f64,
    /// When the consumer had it.
    pub at: Instant,
}

/// A consumer's connection to the bus.
#[derive(Clone)]
pub(super) enum Reader {
    Nats(jetstream::Context),
    Redis(MultiplexedConnection),
}

impl Reader {
    /// Connects.
    pub(super) async fn of(bus: &AnyBus) -> Result<Self, CommandError> {
        match bus {
            AnyBus::Nats(bus) => Ok(Self::Nats(jetstream::new(bus.client()))),
            AnyBus::Redis(bus) => Ok(Self::Redis(bus.connection().await.map_err(cannot)?)),
            AnyBus::Stdout(_) => {
                let problem = "EVENT_BUS: expected nats or redis: standard output has no clock and no acknowledgements";
                Err(CommandError::config(problem))
            }
        }
    }

    /// Returns a reader whose waiting keeps nobody else's questions back.
    pub(super) async fn for_blocking(&self, bus: &AnyBus) -> Result<Self, CommandError> {
        match self {
            Self::Nats(_) => Ok(self.clone()),
            Self::Redis(_) => Self::of(bus).await,
        }
    }

    /// Says how far the bus is. A stream that is not there yet holds nothing.
    pub(super) async fn progress(&self) -> Result<Progress, CommandError> {
        let nothing = Progress { messages: 0, last_stored: 0.0 };
        match self {
            Self::Nats(jetstream) => Ok(find(jetstream).await?.map_or(nothing, |stream| {
                let state = &stream.cached_info().state;
                let nanoseconds = state.last_timestamp.unix_timestamp_nanos();
                Progress { messages: state.messages, last_stored: nanoseconds as f64 / 1e9 }
            })),
            Self::Redis(link) => {
                let mut link = link.clone();
                let messages: u64 = redis::cmd("XLEN").arg(TOPIC).query_async(&mut link).await.map_err(cannot)?;
                let mut last = redis::cmd("XREVRANGE");
                last.arg(TOPIC).arg("+").arg("-").arg("COUNT").arg(1);
                let last: redis::streams::StreamRangeReply = last.query_async(&mut link).await.map_err(cannot)?;
                let last_stored = last.ids.first().map_or(0.0, |entry| milliseconds(&entry.id) / 1e3);
                Ok(Progress { messages, last_stored })
            }
        }
    }

    /// Says whether something of our name is there.
    pub(super) async fn exists(&self) -> Result<bool, CommandError> {
        match self {
            Self::Nats(jetstream) => Ok(find(jetstream).await?.is_some()),
            Self::Redis(link) => redis::cmd("EXISTS").arg(TOPIC).query_async(&mut link.clone()).await.map_err(cannot),
        }
    }

    /// Removes it; nothing to remove is no error.
    pub(super) async fn remove(&self) -> Result<(), CommandError> {
        match self {
            Self::Nats(jetstream) => match find(jetstream).await? {
                Some(_) => jetstream.delete_stream(STREAM).await.map(drop).map_err(cannot),
                None => Ok(()),
            },
            Self::Redis(link) => redis::cmd("UNLINK").arg(TOPIC).query_async(&mut link.clone()).await.map_err(cannot),
        }
    }

    /// Reads everything from the first message on, and what comes, for as long as somebody listens.
    pub(super) async fn read(&self, seen: UnboundedSender<Seen>) -> Result<(), CommandError> {
        match self {
            Self::Nats(jetstream) => {
                let stream = jetstream.get_stream(STREAM).await.map_err(cannot)?;
                let config = OrderedConfig { headers_only: true, ..OrderedConfig::default() };
                let consumer = stream.create_consumer(config).await.map_err(cannot)?;
                let mut messages = consumer.messages().await.map_err(cannot)?;
                while let Some(message) = messages.next().await {
                    let at = Instant::now();
                    let message = message.map_err(cannot)?;
                    let info = message.info().map_err(|error| cannot(error.to_string()))?;
                    let id = message.headers.as_ref().and_then(|headers| headers.get(NATS_MESSAGE_ID));
                    let id = id.and_then(|id| id.as_str().parse().ok()).ok_or_else(|| cannot("a message has no id"))?;
                    let stored = info.published.unix_timestamp_nanos() as f64 / 1e9;
                    if seen.send(Seen { id, stored, at }).is_err() {
                        return Ok(());
                    }
                }
                Err(cannot("the messages ended"))
            }
            Self::Redis(link) => {
                let mut link = link.clone();
                let mut last = "0-0".to_owned();
                loop {
                    let mut read = redis::cmd("XREAD");
                    read.arg("COUNT").arg(PAGE).arg("BLOCK").arg(BLOCK.as_millis() as u64);
                    read.arg("STREAMS").arg(TOPIC).arg(&last);
                    let page: Option<StreamReadReply> = read.query_async(&mut link).await.map_err(cannot)?;
                    let at = Instant::now();
                    for entry in page.into_iter().flat_map(|page| page.keys).flat_map(|key| key.ids) {
                        let seen_now = Seen { id: entry_id(&entry)?, stored: milliseconds(&entry.id) / 1e3, at };
                        last = entry.id;
                        if seen.send(seen_now).is_err() {
                            return Ok(());
                        }
                    }
                    if seen.is_closed() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Counts the copies of each message that is there now.
    pub(super) async fn copies(&self) -> Result<HashMap<Uuid, u64>, CommandError> {
        let messages = self.progress().await?.messages;
        let mut copies = HashMap::new();
        if messages == 0 {
            return Ok(copies);
        }
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel::<Seen>();
        let count = async {
            for _ in 0..messages {
                let Some(seen) = receiver.recv().await else { break };
                *copies.entry(seen.id).or_default() += 1;
            }
        };
        tokio::select! {
            ended = self.read(sender) => ended?,
            () = count => {}
        }
        Ok(copies)
    }

    /// Returns the version of the server.
    pub(super) async fn version(&self) -> Result<String, CommandError> {
        match self {
            Self::Nats(jetstream) => {
                // The server introduces itself before it answers anything.
                find(jetstream).await?;
                Ok(jetstream.client().server_info().version)
            }
            Self::Redis(link) => {
                let mut info = redis::cmd("INFO");
                let info: String = info.arg("server").query_async(&mut link.clone()).await.map_err(cannot)?;
                let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
                Ok(version.ok_or_else(|| cannot("Redis says nothing about its version"))?.trim().to_owned())
            }
        }
    }

    /// Returns the CPU time of the server so far, in seconds; `None` where it cannot be seen.
    pub(super) async fn cpu_seconds(&self, server: Option<i32>) -> Option<f64> {
        match self {
            Self::Nats(_) => processes::cpu_seconds(server?),
            Self::Redis(link) => {
                let info: RedisResult<String> = redis::cmd("INFO").arg("cpu").query_async(&mut link.clone()).await;
                let info = info.ok()?;
                let used =
                    |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
                Some(used("used_cpu_user:")? + used("used_cpu_sys:")?)
            }
        }
    }

    /// Finds the server's process, if it is on this machine and needed for [`cpu_seconds`](Self::cpu_seconds).
    pub(super) fn server(&self) -> Option<i32> {
        match self {
            Self::Nats(_) => processes::connected_to("nats-server"),
            Self::Redis(_) => None,
        }
    }
}

async fn find(jetstream: &jetstream::Context) -> Result<Option<Stream>, CommandError> {
    match jetstream.get_stream(STREAM).await {
        Ok(stream) => Ok(Some(stream)),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            _ => Err(cannot(error)),
        },
    }
}

fn milliseconds(entry_id: &str) -> f64 {
    entry_id.split('-').next().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn entry_id(entry: &StreamId) -> Result<Uuid, CommandError> {
    let id = match entry.map.get("id") {
        Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()),
        _ => None,
    };
    id.ok_or_else(|| cannot("an entry has no id"))
}

fn cannot(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> CommandError {
    CommandError::failure("cannot read the bus", error)
}
