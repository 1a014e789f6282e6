use std::ops::ControlFlow;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use tokio::sync::OnceCell;
use uuid::Uuid;

use super::RedisBus;
use crate::bus::read_back::{Each, Message, Parts, Position, ReadBack, ServerCpu, Stored};
use crate::bus::{BusError, BusErrorKind};
use crate::event::Headers;

/// Entries read at a time.
const PAGE: usize = 1000;
/// How long the server lets a reader wait for the next entry.
const BLOCK: Duration = Duration::from_secs(1);
/// Header fields have this prefix.
const HEADER_PREFIX: &str = "header.";
/// Fields that are headers without it.
const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Reads the stream of a topic.
#[derive(Debug)]
pub struct RedisReader {
    bus: RedisBus,
    topic: String,
    /// For questions. Following has a connection of its own, for it blocks.
    link: OnceCell<MultiplexedConnection>,
}

impl RedisBus {
    /// Reads the stream of `topic`, over connections made as this bus makes them.
    pub fn reader(&self, topic: impl Into<String>) -> RedisReader {
        RedisReader { bus: self.clone(), topic: topic.into(), link: OnceCell::new() }
    }
}

impl RedisReader {
    async fn link(&self) -> Result<MultiplexedConnection, BusError> {
        self.link.get_or_try_init(|| self.bus.connection()).await.cloned()
    }

    async fn info(&self, section: &str) -> Result<String, BusError> {
        redis::cmd("INFO").arg(section).query_async(&mut self.link().await?).await.map_err(cannot)
    }
}

#[async_trait]
impl ReadBack for RedisReader {
    fn name(&self) -> &str {
        &self.topic
    }

    async fn stored(&self) -> Result<Option<Stored>, BusError> {
        let mut link = self.link().await?;
        let mut questions = redis::pipe();
        questions.cmd("EXISTS").arg(&self.topic).cmd("XLEN").arg(&self.topic);
        questions.cmd("XREVRANGE").arg(&self.topic).arg("+").arg("-").arg("COUNT").arg(1);
        let answers: RedisResult<(bool, u64, StreamRangeReply)> = questions.query_async(&mut link).await;
        let (exists, messages, last) = answers.map_err(cannot)?;
        let last = last.ids.first().map(|entry| position(&entry.id)).transpose()?;
        let last_at = last.map(stored_at).transpose()?;
        Ok(exists.then_some(Stored { messages, last, last_at }))
    }

    async fn remove(&self) -> Result<(), BusError> {
        redis::cmd("UNLINK").arg(&self.topic).query_async(&mut self.link().await?).await.map_err(cannot)
    }

    async fn follow(&self, _: Parts, each: &mut Each<'_>) -> Result<(), BusError> {
        let mut link = self.bus.connection().await?;
        let mut after = "0-0".to_owned();
        let mut number = 0;
        loop {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(PAGE).arg("BLOCK").arg(BLOCK.as_millis() as u64);
            read.arg("STREAMS").arg(&self.topic).arg(&after);
            let page: Option<StreamReadReply> = read.query_async(&mut link).await.map_err(cannot)?;
            for entry in page.into_iter().flat_map(|page| page.keys).flat_map(|key| key.ids) {
                number += 1;
                let message = message(&self.topic, number, &entry)?;
                after = entry.id;
                if let ControlFlow::Break(()) = each(message) {
                    return Ok(());
                }
            }
        }
    }

    async fn server_version(&self) -> Result<String, BusError> {
        let info = self.info("server").await?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.ok_or_else(|| cannot("Redis says nothing about its version"))?.trim().to_owned())
    }

    async fn server_cpu(&self) -> Result<ServerCpu, BusError> {
        let info = self.info("cpu").await?;
        let used = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        let told = used("used_cpu_user:").zip(used("used_cpu_sys:"));
        told.map(|(user, sys)| ServerCpu::Told(user + sys))
            .ok_or_else(|| cannot("Redis says nothing about its CPU time"))
    }
}

fn message(topic: &str, number: u64, entry: &StreamId) -> Result<Message, BusError> {
    let text = |field: &str| entry.get::<String>(field);
    let missing = |field: &str| cannot(format!("entry {} has no field {field}: not from a relay", entry.id));
    let event_type = text("type").ok_or_else(|| missing("type"))?;
    let mut headers = Headers::new();
    for field in entry.map.keys() {
        let name = field.strip_prefix(HEADER_PREFIX).or(TRACE_HEADERS.contains(&field.as_str()).then_some(field));
        if let (Some(name), Some(value)) = (name, text(field)) {
            headers.insert(name.to_owned(), value);
        }
    }
    let position = position(&entry.id)?;
    Ok(Message {
        id: Uuid::try_parse(&text("id").ok_or_else(|| missing("id"))?).map_err(cannot)?,
        subject: if event_type.is_empty() { topic.to_owned() } else { format!("{topic}.{event_type}") },
        key: text("key"),
        headers,
        body: entry.get::<Vec<u8>>("envelope").ok_or_else(|| missing("envelope"))?.into(),
        position,
        number,
        stored_at: stored_at(position)?,
    })
}

/// Reads an entry's id: milliseconds since 1970, and a number within them.
fn position(entry_id: &str) -> Result<Position, BusError> {
    let parts = entry_id.split_once('-').and_then(|(time, number)| Some((time.parse().ok()?, number.parse().ok()?)));
    let (milliseconds, number) =
        parts.ok_or_else(|| cannot(format!("expected <milliseconds>-<number>, got {entry_id}")))?;
    Ok(Position(milliseconds, number))
}

fn stored_at(Position(milliseconds, _): Position) -> Result<Timestamp, BusError> {
    Timestamp::from_millisecond(i64::try_from(milliseconds).map_err(cannot)?).map_err(cannot)
}

fn cannot(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BusError {
    BusError::new(BusErrorKind::Unavailable, "cannot read the stream").with_source(error)
}
