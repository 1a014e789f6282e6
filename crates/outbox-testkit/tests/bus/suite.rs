//! The suite that every bus must pass, on each of them.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use async_nats::HeaderMap;
use bytes::Bytes;
use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig, StreamConfig};
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::bus::stdout::StdoutBus;
use gamemesh_outbox::event::Headers;
use outbox_testkit::bus_suite::{self, BusCapability, BusHarness, Delivered};
use outbox_testkit::servers::{NatsServer, RedisServer};
use redis::AsyncCommands;
use redis::streams::StreamRangeReply;
use serde_json::value::RawValue;
use uuid::Uuid;

const MIB: usize = 1024 * 1024;

struct Memory(MemoryBus);

impl BusHarness for Memory {
    type Bus = MemoryBus;

    fn bus(&self) -> &MemoryBus {
        &self.0
    }

    fn topic(&self) -> &str {
        "events.player"
    }

    fn can(&self) -> BusCapability {
        BusCapability { deduplicates: true, message_bytes_max: Some(MIB) }
    }

    async fn delivered(&self) -> Vec<Delivered> {
        let messages = self.0.messages().into_iter();
        messages
            .map(|message| Delivered {
                subject: message.subject,
                id: message.id,
                body: message.body,
                headers: message.headers,
            })
            .collect()
    }
}

#[tokio::test]
async fn the_memory_bus_passes_the_suite() {
    bus_suite::run(async || Memory(MemoryBus::default())).await;
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

struct Stdout {
    lines: Lines,
    bus: StdoutBus<Lines>,
}

impl BusHarness for Stdout {
    type Bus = StdoutBus<Lines>;

    fn bus(&self) -> &StdoutBus<Lines> {
        &self.bus
    }

    fn topic(&self) -> &str {
        "events.player"
    }

    fn can(&self) -> BusCapability {
        BusCapability::default()
    }

    async fn delivered(&self) -> Vec<Delivered> {
        let written = String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap();
        written.lines().map(read_line).collect()
    }
}

fn read_line(line: &str) -> Delivered {
    let fields: HashMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap();
    let envelope = fields["envelope"].get();
    let inner: HashMap<String, Box<RawValue>> = serde_json::from_str(envelope).unwrap();
    Delivered {
        subject: serde_json::from_str(fields["subject"].get()).unwrap(),
        id: serde_json::from_str::<String>(inner["id"].get()).unwrap().parse().unwrap(),
        body: envelope.to_owned().into(),
        headers: fields.get("headers").map(|headers| serde_json::from_str(headers.get()).unwrap()).unwrap_or_default(),
    }
}

#[tokio::test]
async fn the_stdout_bus_passes_the_suite() {
    bus_suite::run(async || {
        let lines = Lines::default();
        Stdout { bus: StdoutBus::new(lines.clone()), lines }
    })
    .await;
}

struct Nats {
    topic: String,
    stream: String,
    bus: NatsBus,
    client: async_nats::Client,
}

impl BusHarness for Nats {
    type Bus = NatsBus;

    fn bus(&self) -> &NatsBus {
        &self.bus
    }

    fn topic(&self) -> &str {
        &self.topic
    }

    fn can(&self) -> BusCapability {
        BusCapability { deduplicates: true, message_bytes_max: Some(MIB) }
    }

    async fn delivered(&self) -> Vec<Delivered> {
        let stream = async_nats::jetstream::new(self.client.clone()).get_stream(&self.stream).await.unwrap();
        let mut delivered = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            let message = stream.get_raw_message(sequence).await.unwrap();
            let id = message.headers.get("Nats-Msg-Id").unwrap().as_str().parse().unwrap();
            let headers = plain_headers(&message.headers);
            delivered.push(Delivered { subject: message.subject.to_string(), id, body: message.payload, headers });
        }
        delivered
    }
}

fn plain_headers(headers: &HeaderMap) -> Headers {
    let named = headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string()));
    named.filter(|(name, _)| name != "Nats-Msg-Id").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_passes_the_suite() {
    let server = NatsServer::shared();
    bus_suite::run(async || {
        let name = Uuid::now_v7().simple().to_string();
        let (topic, stream) = (format!("suite.{name}"), format!("SUITE{name}"));
        let streams = vec![StreamConfig { name: stream.clone(), topics: vec![topic.clone()] }];
        let config = NatsConfig { url: server.url(), streams, ..NatsConfig::default() };
        let bus = NatsBus::connect(config).await.unwrap();
        Nats { topic, stream, bus, client: async_nats::connect(server.url()).await.unwrap() }
    })
    .await;
}

struct Redis {
    topic: String,
    bus: RedisBus,
    connection: redis::aio::MultiplexedConnection,
}

impl BusHarness for Redis {
    type Bus = RedisBus;

    fn bus(&self) -> &RedisBus {
        &self.bus
    }

    fn topic(&self) -> &str {
        &self.topic
    }

    fn can(&self) -> BusCapability {
        BusCapability { deduplicates: false, message_bytes_max: Some(MIB) }
    }

    async fn delivered(&self) -> Vec<Delivered> {
        let entries: StreamRangeReply = self.connection.clone().xrange_all(&self.topic).await.unwrap();
        entries.ids.into_iter().map(|entry| read_entry(&self.topic, &entry)).collect()
    }
}

fn read_entry(topic: &str, entry: &redis::streams::StreamId) -> Delivered {
    let event_type: String = entry.get("type").unwrap();
    let mut headers = Headers::new();
    for name in entry.map.keys() {
        let trace = ["traceparent", "tracestate", "baggage"].contains(&name.as_str());
        if let Some(header) = name.strip_prefix("header.").or(trace.then_some(name)) {
            headers.insert(header.to_owned(), entry.get(name).unwrap());
        }
    }
    Delivered {
        subject: if event_type.is_empty() { topic.to_owned() } else { format!("{topic}.{event_type}") },
        id: entry.get::<String>("id").unwrap().parse().unwrap(),
        body: Bytes::from(entry.get::<Vec<u8>>("envelope").unwrap()),
        headers,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_passes_the_suite() {
    let server = RedisServer::shared();
    bus_suite::run(async || {
        let topic = format!("suite.{}", Uuid::now_v7());
        let config = RedisConfig { url: server.url(), message_bytes_max: MIB as u64, ..RedisConfig::default() };
        let connection = redis::Client::open(server.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
        Redis { topic, bus: RedisBus::connect(config).await.unwrap(), connection }
    })
    .await;
}
