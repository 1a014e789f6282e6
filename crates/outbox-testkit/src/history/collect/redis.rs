//! P from Redis Streams.

use anyhow::{Context, Result};
use gamemesh_outbox::event::Headers;
use redis::AsyncConnectionConfig;
use redis::streams::{StreamId, StreamRangeReply};

use super::bus::envelope;
use crate::history::{Delivery, Nanos};

/// Entries read at a time.
const PAGE: usize = 1000;
/// Header fields have this prefix.
const HEADER_PREFIX: &str = "header.";
/// Fields that are headers without it.
const TRACE_HEADERS: [&str; 3] = ["traceparent", "tracestate", "baggage"];

/// Reads the stream of `topic` from its first entry to its last. The server stamps entries to the millisecond.
pub async fn read(url: &str, topic: &str) -> Result<Vec<Delivery>> {
    let settings = AsyncConnectionConfig::new().set_response_timeout(None);
    let mut link = redis::Client::open(url)?.get_multiplexed_async_connection_with_config(&settings).await?;
    let mut deliveries: Vec<Delivery> = Vec::new();
    let mut from = "-".to_owned();
    loop {
        let mut range = redis::cmd("XRANGE");
        range.arg(topic).arg(&from).arg("+").arg("COUNT").arg(PAGE);
        let page: StreamRangeReply = range.query_async(&mut link).await?;
        let Some(last) = page.ids.last() else { return Ok(deliveries) };
        from = format!("({}", last.id);
        for entry in &page.ids {
            let position = deliveries.len() as u64 + 1;
            deliveries.push(delivery(topic, position, entry).with_context(|| format!("entry {}", entry.id))?);
        }
    }
}

fn delivery(topic: &str, position: u64, entry: &StreamId) -> Result<Delivery> {
    let text = |field: &str| entry.get::<String>(field);
    let milliseconds: Nanos = entry.id.split('-').next().unwrap_or_default().parse()?;
    let event_type = text("type").context("no field type")?;
    let mut headers = Headers::new();
    for field in entry.map.keys() {
        let name = field.strip_prefix(HEADER_PREFIX).or(TRACE_HEADERS.contains(&field.as_str()).then_some(field));
        if let (Some(name), Some(value)) = (name, text(field)) {
            headers.insert(name.to_owned(), value);
        }
    }
    Ok(Delivery {
        at: milliseconds * 1_000_000,
        stream: topic.to_owned(),
        position,
        id: text("id").context("no field id")?.parse()?,
        subject: if event_type.is_empty() { topic.to_owned() } else { format!("{topic}.{event_type}") },
        key: text("key"),
        headers,
        envelope: entry.get::<Vec<u8>>("envelope").as_deref().and_then(envelope),
    })
}
