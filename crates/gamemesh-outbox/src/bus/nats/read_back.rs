use std::ops::ControlFlow;
use std::time::Duration;

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, ErrorCode, Message as Delivered};
use async_trait::async_trait;
use futures_util::StreamExt;
use jiff::Timestamp;
use uuid::Uuid;

use super::NatsBus;
use crate::bus::read_back::{Each, Message, Parts, Position, ReadBack, ServerCpu, Stored};
use crate::bus::{BusError, BusErrorKind};
use crate::event::Headers;

/// How long the server may take for a message that is there.
const PATIENCE: Duration = Duration::from_secs(60);
/// Headers of this prefix belong to the bus.
const OWN_PREFIX: &str = "Nats-";

/// Reads a stream.
#[derive(Clone, Debug)]
pub struct NatsReader {
    jetstream: jetstream::Context,
    stream: String,
}

impl NatsBus {
    /// Reads `stream` over the connection of this bus.
    pub fn reader(&self, stream: impl Into<String>) -> NatsReader {
        let jetstream = jetstream::with_prefix(self.client(), &self.inner.config.api_prefix());
        NatsReader { jetstream, stream: stream.into() }
    }
}

impl NatsReader {
    /// Reads `stream` over `client`.
    pub fn new(client: async_nats::Client, stream: impl Into<String>) -> Self {
        Self { jetstream: jetstream::new(client), stream: stream.into() }
    }

    async fn find(&self) -> Result<Option<Stream>, BusError> {
        match self.jetstream.get_stream(&self.stream).await {
            Ok(stream) => Ok(Some(stream)),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(said) if said.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
                _ => Err(cannot(error)),
            },
        }
    }
}

#[async_trait]
impl ReadBack for NatsReader {
    fn name(&self) -> &str {
        &self.stream
    }

    async fn stored(&self) -> Result<Option<Stored>, BusError> {
        let Some(stream) = self.find().await? else { return Ok(None) };
        let state = &stream.cached_info().state;
        let any = state.messages > 0;
        Ok(Some(Stored {
            messages: state.messages,
            last: any.then_some(Position(state.last_sequence, 0)),
            last_at: any.then(|| timestamp(state.last_timestamp.unix_timestamp_nanos())).transpose()?,
        }))
    }

    async fn remove(&self) -> Result<(), BusError> {
        match self.find().await? {
            Some(_) => self.jetstream.delete_stream(&self.stream).await.map(drop).map_err(cannot),
            None => Ok(()),
        }
    }

    async fn follow(&self, parts: Parts, each: &mut Each<'_>) -> Result<(), BusError> {
        let stream = self.jetstream.get_stream(&self.stream).await.map_err(cannot)?;
        let there = stream.cached_info().state.last_sequence;
        let config = OrderedConfig { headers_only: parts == Parts::Id, ..OrderedConfig::default() };
        let consumer = stream.create_consumer(config).await.map_err(cannot)?;
        let mut messages = consumer.messages().await.map_err(cannot)?;
        let mut position = 0;
        loop {
            let next = if position < there {
                tokio::time::timeout(PATIENCE, messages.next()).await.map_err(cannot)?
            } else {
                messages.next().await
            };
            let delivered = next.ok_or_else(|| cannot("the messages ended"))?.map_err(cannot)?;
            let message = message(&delivered)?;
            position = message.position.0;
            if let ControlFlow::Break(()) = each(message) {
                return Ok(());
            }
        }
    }

    async fn server_version(&self) -> Result<String, BusError> {
        // The server introduces itself before it answers anything.
        self.find().await?;
        Ok(self.jetstream.client().server_info().version)
    }

    async fn server_cpu(&self) -> Result<ServerCpu, BusError> {
        Ok(ServerCpu::OfProcess("nats-server"))
    }
}

fn message(delivered: &Delivered) -> Result<Message, BusError> {
    let info = delivered.info().map_err(|error| cannot(error.to_string()))?;
    let sequence = info.stream_sequence;
    let mut headers = Headers::new();
    let mut id = None;
    for (name, values) in delivered.headers.iter().flat_map(|headers| headers.iter()) {
        let name: &str = name.as_ref();
        let [value] = values.as_slice() else {
            return Err(cannot(format!("message {sequence}: header {name} has {} values", values.len())));
        };
        if name == <_ as AsRef<str>>::as_ref(&NATS_MESSAGE_ID) {
            id = Some(Uuid::try_parse(value.as_str()).map_err(cannot)?);
        } else if !name.starts_with(OWN_PREFIX) {
            headers.insert(name.to_owned(), value.as_str().to_owned());
        }
    }
    Ok(Message {
        id: id.ok_or_else(|| cannot(format!("message {sequence} has no id: not from a relay")))?,
        subject: delivered.subject.to_string(),
        key: None,
        headers,
        body: delivered.payload.clone(),
        position: Position(sequence, 0),
        number: sequence,
        stored_at: timestamp(info.published.unix_timestamp_nanos())?,
    })
}

fn timestamp(nanoseconds: i128) -> Result<Timestamp, BusError> {
    Timestamp::from_nanosecond(nanoseconds).map_err(cannot)
}

fn cannot(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> BusError {
    BusError::new(BusErrorKind::Unavailable, "cannot read the stream").with_source(error)
}
