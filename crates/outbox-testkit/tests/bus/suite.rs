//! The suite that every bus must pass, on each of them.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use gamemesh_outbox::bus::memory::MemoryBus;
use gamemesh_outbox::bus::nats::{NatsBus, NatsConfig, StreamConfig};
use gamemesh_outbox::bus::read_back::ReadBack;
use gamemesh_outbox::bus::redis::{RedisBus, RedisConfig};
use gamemesh_outbox::bus::stdout::StdoutBus;
use outbox_testkit::bus_suite::{self, BusCapability, BusHarness, Delivered};
use outbox_testkit::servers::{NatsServer, RedisServer};
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
        let reader = self.bus.reader(&self.stream);
        reader.read_all().await.unwrap().into_iter().map(Delivered::from).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_passes_the_suite() {
    let server = NatsServer::shared();
    bus_suite::run(async || {
        let name = Uuid::now_v7().simple().to_string();
        let (topic, stream) = (format!("suite.{name}"), format!("SUITE{name}"));
        let streams = vec![StreamConfig::new(stream.clone(), [topic.clone()])];
        let config = NatsConfig { url: server.url(), streams, ..NatsConfig::default() };
        Nats { topic, stream, bus: NatsBus::connect(config).await.unwrap() }
    })
    .await;
}

struct Redis {
    topic: String,
    bus: RedisBus,
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
        let reader = self.bus.reader(&self.topic);
        reader.read_all().await.unwrap().into_iter().map(Delivered::from).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_passes_the_suite() {
    let server = RedisServer::shared();
    bus_suite::run(async || {
        let topic = format!("suite.{}", Uuid::now_v7());
        let config = RedisConfig { url: server.url(), message_bytes_max: MIB as u64, ..RedisConfig::default() };
        Redis { topic, bus: RedisBus::connect(config).await.unwrap() }
    })
    .await;
}
