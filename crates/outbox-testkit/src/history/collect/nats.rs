//! P from NATS JetStream.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::{Context as JetStream, Message, consumer::pull::OrderedConfig};
use futures_util::StreamExt;
use gamemesh_outbox::event::Headers;

use super::bus::envelope;
use crate::history::{Delivery, Nanos};

/// How long the server may take for the next message before the reading fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Headers of this prefix belong to the bus.
const OWN_PREFIX: &str = "Nats-";

/// Reads `stream` from its first message to the one that is the last when the reading begins, through an ordered
/// consumer of its own.
pub async fn read(jetstream: &JetStream, stream: &str) -> Result<Vec<Delivery>> {
    let mut source = jetstream.get_stream(stream).await?;
    let last = source.info().await?.state.last_sequence;
    let mut deliveries = Vec::new();
    if source.cached_info().state.messages == 0 {
        return Ok(deliveries);
    }
    let consumer = source.create_consumer(OrderedConfig::default()).await?;
    let mut messages = consumer.messages().await?;
    loop {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = next.context("no further message")?.context("the end of the messages")??;
        let delivery = delivery(stream, &message)?;
        let position = delivery.position;
        deliveries.push(delivery);
        if position >= last {
            return Ok(deliveries);
        }
    }
}

fn delivery(stream: &str, message: &Message) -> Result<Delivery> {
    let info = message.info().map_err(|error| anyhow!("message without its place: {error}"))?;
    let mut headers = Headers::new();
    let mut id = None;
    for (name, values) in message.headers.iter().flat_map(|headers| headers.iter()) {
        let name: &str = name.as_ref();
        let value: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
        ensure!(value.len() == 1, "message {}: header {name} has {} values", info.stream_sequence, value.len());
        if name == <_ as AsRef<str>>::as_ref(&NATS_MESSAGE_ID) {
            id = Some(value[0].parse().with_context(|| format!("message {}: {name}", info.stream_sequence))?);
        } else if !name.starts_with(OWN_PREFIX) {
            headers.insert(name.to_owned(), value[0].to_owned());
        }
    }
    Ok(Delivery {
        at: Nanos::try_from(info.published.unix_timestamp_nanos()).context("a time before 1970")?,
        stream: stream.to_owned(),
        position: info.stream_sequence,
        id: id.with_context(|| format!("message {} has no id: not from a relay", info.stream_sequence))?,
        subject: message.subject.to_string(),
        key: None,
        headers,
        envelope: envelope(&message.payload),
    })
}
