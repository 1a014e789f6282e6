//! What can be wrong with a NATS server and its streams: above all, whether an acknowledged event is kept.
//!
//! One thing no client can see: whether the server syncs what it stores to the disk. It is told on the server's
//! monitoring port, whose answer [`judge_monitoring`] reads.

use std::net::IpAddr;
use std::time::Duration;

use async_nats::ServerInfo;
use async_nats::jetstream::stream::{Config, DiscardPolicy, PersistenceMode, RetentionPolicy, StorageType};
use async_trait::async_trait;
use serde::Deserialize;
use tokio::time::timeout;

use super::streams::{Found, Problem, covers};
use super::{CHECK_TIMEOUT, Inner, NatsBus, StreamConfig};
use crate::diagnosis::{Demands, Diagnose, Finding, checks, span, version};

checks! {
    CONNECTION = "nats.connection", "whether the server answers and JetStream is enabled", "no event is published";
    VERSION = "nats.version", "the server's version",
        "the relay is tested with 2.12 and newer; fixes no longer reach older servers";
    TLS = "nats.tls", "whether the connection is encrypted",
        "whoever can read the network reads payloads and passwords";
    PAYLOAD = "nats.max_payload", "the server's max_payload against OUTBOX_PAYLOAD_BYTES_MAX",
        "an event between the two limits is refused each time and ends as a dead letter";
    STREAM = "nats.stream", "whether each configured stream exists",
        "its events stay in the outbox: nothing stores them";
    SUBJECTS = "nats.subjects", "whether each stream takes all subjects of its topics",
        "events of the other subjects stay in the outbox";
    ACKNOWLEDGEMENT = "nats.acknowledgement", "no_ack and the persist mode of each stream",
        "every publish runs into its timeout, or is acknowledged before it is stored and lost in a crash";
    STORAGE = "nats.storage", "whether each stream is kept in files",
        "a restart of the server loses every acknowledged event";
    REPLICAS = "nats.replicas", "on how many servers each stream is kept",
        "while the one server is down nothing can be published, and with its disk the events are gone";
    RETENTION = "nats.retention", "age, size and message limits of each stream, and what it does when it is full",
        "acknowledged events vanish before a consumer has read them";
    DUPLICATES = "nats.duplicate_window", "each stream's duplicate window against the time between two tries",
        "an event whose acknowledgement was lost is stored a second time, with the same id";
    SYNC = "nats.sync", "sync_always, on the monitoring port that OUTBOX_NATS_MONITORING_URL names",
        "a loss of power takes acknowledged events with it, up to two minutes of them by default";
}

/// A stream that keeps events for less leaves no time for a consumer that is down over night.
const MAX_AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

#[async_trait]
impl Diagnose for NatsBus {
    async fn reach(&self) -> Result<(), String> {
        self.inner.connected().map_err(|error| error.chain())?;
        // Any answer will do. A stream of this name cannot be asked for by accident.
        let asked = self.inner.find("outbox-doctor-asks");
        match timeout(CHECK_TIMEOUT, asked).await {
            Ok(Ok(_) | Err(Problem::Stream(_))) => Ok(()),
            Ok(Err(Problem::Bus(error))) => Err(error.chain()),
            Err(_) => Err("JetStream did not answer in time".to_owned()),
        }
    }

    async fn diagnose(&self, demands: &Demands) -> Vec<Finding> {
        if let Err(problem) = self.reach().await {
            let fix = "start nats-server with JetStream (`nats-server -js`), or correct NATS_URL and its credentials";
            return vec![CONNECTION.error(problem, fix)];
        }
        let info = self.inner.client.server_info();
        let mut findings = vec![
            CONNECTION.ok(format!("connected to {}", info.server_name)),
            judge_version(&info.version),
            self.inner.judge_tls(&info),
            judge_payload(info.max_payload as u64, demands.payload_bytes_max),
        ];
        for stream in &self.inner.config.streams {
            match timeout(CHECK_TIMEOUT, self.inner.find(&stream.name)).await {
                Ok(Ok(Found::Stream(found))) => findings.extend(judge_stream(stream, &found, demands)),
                Ok(Ok(Found::Missing)) => findings.push(self.inner.missing(stream)),
                Ok(Ok(Found::Unknown(why)) | Err(Problem::Stream(why))) => findings.push(unknown(stream, &why)),
                Ok(Err(Problem::Bus(error))) => findings.push(unknown(stream, &error.chain())),
                Err(_) => findings.push(unknown(stream, "JetStream did not answer in time")),
            }
        }
        findings
    }
}

impl Inner {
    fn judge_tls(&self, info: &ServerInfo) -> Finding {
        let servers = self.config.servers().map(|servers| servers.addresses).unwrap_or_default();
        let asked_for = !servers.is_empty() && servers.iter().all(async_nats::ServerAddr::tls_required);
        let here = servers.iter().all(|server| is_this_machine(server.host()));
        judge_tls(asked_for || info.tls_required, here)
    }

    fn missing(&self, stream: &StreamConfig) -> Finding {
        let config = &self.config;
        let fix = format!(
            "start the relay, which creates it, or:\nnats stream add {} --subjects '{}' --storage file --replicas {} \
             --retention limits --discard old --max-age {}s --dupe-window {}s --defaults",
            stream.name,
            stream.subjects().join(","),
            config.stream_replicas,
            config.stream_max_age.as_secs(),
            config.duplicate_window.as_secs().max(1),
        );
        STREAM.error(format!("stream {} does not exist", stream.name), fix)
    }
}

/// Reads what a server's monitoring port says at `/varz`: `Ok` holds its body, `Err` why there is none.
pub fn judge_monitoring(varz: Result<&str, &str>) -> Finding {
    #[derive(Deserialize)]
    struct Varz {
        jetstream: Option<JetStream>,
    }
    #[derive(Deserialize)]
    struct JetStream {
        config: Option<JetStreamConfig>,
    }
    #[derive(Deserialize)]
    struct JetStreamConfig {
        #[serde(default)]
        sync_always: bool,
        /// In nanoseconds.
        #[serde(default)]
        sync_interval: u64,
    }
    const FIX: &str = "in nats-server.conf, on every server:\njetstream { sync_interval: always }";
    let body = match varz {
        Ok(body) => body,
        Err(why) => {
            let fix = "set OUTBOX_NATS_MONITORING_URL to the server's monitoring address, such as http://127.0.0.1:8222 \
                       (`http_port: 8222` in nats-server.conf)";
            return SYNC.warning(format!("not known: {why}"), fix);
        }
    };
    let config = serde_json::from_str::<Varz>(body).ok().and_then(|varz| varz.jetstream?.config);
    match config {
        None => SYNC.warning(
            "not known: expected the /varz of a NATS server with JetStream, got something else",
            "correct OUTBOX_NATS_MONITORING_URL, such as http://127.0.0.1:8222",
        ),
        Some(config) if config.sync_always => SYNC.ok("each message is synced to the disk before it is acknowledged"),
        Some(config) => {
            let every = Duration::from_nanos(config.sync_interval).as_secs_f64();
            SYNC.warning(
                format!("the server syncs to its disk every {}, not before an acknowledgement", span(every)),
                FIX,
            )
        }
    }
}

/// Says that nobody told where the monitoring port is.
pub fn monitoring_not_configured() -> Finding {
    judge_monitoring(Err("OUTBOX_NATS_MONITORING_URL is not set"))
}

fn unknown(stream: &StreamConfig, why: &str) -> Finding {
    let fix = format!("allow the relay's user to publish to $JS.API.STREAM.INFO.{}", stream.name);
    STREAM.warning(format!("stream {}: not known: {why}", stream.name), fix)
}

fn is_this_machine(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

fn judge_tls(encrypted: bool, here: bool) -> Finding {
    match (encrypted, here) {
        (true, _) => TLS.ok("encrypted"),
        (false, true) => TLS.ok("not encrypted, but nothing leaves this machine"),
        (false, false) => TLS.warning(
            "not encrypted",
            "give the server certificates (tls { ... } in nats-server.conf) and write tls:// in NATS_URL",
        ),
    }
}

fn judge_version(text: &str) -> Finding {
    match version(text) >= (2, 12) {
        true => VERSION.ok(format!("nats-server {text}")),
        false => VERSION.warning(format!("nats-server {text}"), "upgrade to nats-server 2.12 or newer"),
    }
}

fn judge_payload(server: u64, relay: u64) -> Finding {
    let found = format!("the server takes {server} bytes, the relay {relay}");
    match server < relay {
        false => PAYLOAD.ok(found),
        // The envelope needs room around the payload.
        true => PAYLOAD.warning(
            found,
            format!("in nats-server.conf: max_payload: {}\nor OUTBOX_PAYLOAD_BYTES_MAX={server}", relay + 64 * 1024),
        ),
    }
}

fn judge_stream(wanted: &StreamConfig, found: &Config, demands: &Demands) -> Vec<Finding> {
    let name = &wanted.name;
    vec![
        STREAM.ok(format!("stream {name} exists")),
        judge_subjects(wanted, found),
        judge_acknowledgement(name, found),
        judge_storage(name, found),
        judge_replicas(name, found),
        judge_retention(name, found),
        judge_duplicates(name, found, demands),
    ]
}

fn judge_subjects(wanted: &StreamConfig, found: &Config) -> Finding {
    let name = &wanted.name;
    let is_missing = |subject: &String| !found.subjects.iter().any(|pattern| covers(pattern, subject));
    let missing: Vec<String> = wanted.subjects().into_iter().filter(is_missing).collect();
    if missing.is_empty() {
        return SUBJECTS.ok(format!("stream {name} takes all subjects of its topics"));
    }
    let all = [found.subjects.clone(), missing.clone()].concat().join(",");
    SUBJECTS.error(
        format!("stream {name} does not take {}", missing.join(", ")),
        format!("nats stream edit {name} --subjects '{all}' --force"),
    )
}

fn judge_acknowledgement(name: &str, found: &Config) -> Finding {
    if found.no_ack {
        return ACKNOWLEDGEMENT.error(
            format!("stream {name} has no_ack: the server never acknowledges"),
            format!("nats stream edit {name} --ack --force"),
        );
    }
    if matches!(found.persist_mode, Some(PersistenceMode::Async)) {
        return ACKNOWLEDGEMENT.error(
            format!("stream {name} has the persist mode async: it acknowledges before it stores"),
            format!("create the stream anew with the default persist mode (`nats stream backup {name} DIR` keeps its messages)"),
        );
    }
    ACKNOWLEDGEMENT.ok(format!("stream {name} acknowledges what it has stored"))
}

fn judge_storage(name: &str, found: &Config) -> Finding {
    match found.storage {
        StorageType::File => STORAGE.ok(format!("stream {name} is kept in files")),
        StorageType::Memory => STORAGE.error(
            format!("stream {name} is kept in memory"),
            format!(
                "the storage of a stream cannot be changed. When its consumers have read everything, delete it and let the \
                 relay create it:\nnats stream rm {name} --force"
            ),
        ),
    }
}

fn judge_replicas(name: &str, found: &Config) -> Finding {
    let replicas = found.num_replicas.max(1);
    let text = format!("stream {name} is kept on {replicas} server{}", if replicas == 1 { "" } else { "s" });
    match replicas {
        3.. => REPLICAS.ok(text),
        _ => REPLICAS.warning(
            text,
            format!("in a cluster: nats stream edit {name} --replicas 3 --force (and OUTBOX_NATS_STREAM_REPLICAS=3)"),
        ),
    }
}

fn judge_retention(name: &str, found: &Config) -> Finding {
    let limits = [
        ("max_msgs", found.max_messages > 0),
        ("max_bytes", found.max_bytes > 0),
        ("max_msgs_per_subject", found.max_messages_per_subject > 0),
    ];
    let limits: Vec<&str> = limits.into_iter().filter(|(_, set)| *set).map(|(limit, _)| limit).collect();
    if !limits.is_empty() && found.discard == DiscardPolicy::Old {
        return RETENTION.warning(
            format!("stream {name} has {} and discards its oldest messages when it is full, read or not", limits.join(", ")),
            format!("nats stream edit {name} --discard new --force\n-- then a full stream refuses, and events wait in the outbox"),
        );
    }
    if found.retention == RetentionPolicy::Interest {
        return RETENTION.warning(
            format!("stream {name} keeps only what a consumer that exists has asked for"),
            format!("create every durable consumer before the relay publishes, or create the stream with --retention limits: nats stream info {name}"),
        );
    }
    if !found.max_age.is_zero() && found.max_age < MAX_AGE_MIN {
        return RETENTION.warning(
            format!("stream {name} keeps messages for {} only", span(found.max_age.as_secs_f64())),
            format!("nats stream edit {name} --max-age 72h --force"),
        );
    }
    let age = match found.max_age.is_zero() {
        true => "for ever".to_owned(),
        false => format!("for {}", span(found.max_age.as_secs_f64())),
    };
    let full = if limits.is_empty() { "" } else { ", and refuses more when it is full" };
    RETENTION.ok(format!("stream {name} keeps messages {age}{full}"))
}

fn judge_duplicates(name: &str, found: &Config, demands: &Demands) -> Finding {
    let (window, tries) = (found.duplicate_window, demands.retry_span);
    let text = format!(
        "stream {name} remembers ids for {}; two tries are at most {} apart while the bus is up",
        span(window.as_secs_f64()),
        span(tries.as_secs_f64()),
    );
    match window < tries {
        false => DUPLICATES.ok(text),
        true => {
            let enough = (tries * 2).as_secs().max(120);
            DUPLICATES.warning(text, format!("nats stream edit {name} --dupe-window {enough}s --force"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Check;
    use crate::diagnosis::Severity::{self, Error, Ok, Warning};

    const DEMANDS: Demands = Demands {
        deletes: false,
        payload_bytes_max: 8 << 20,
        retry_span: Duration::from_secs(15),
        long_transaction: Duration::from_secs(60),
    };

    fn wanted() -> StreamConfig {
        StreamConfig { name: "PLAYER".into(), topics: vec!["events.player".into()] }
    }

    fn good() -> Config {
        Config {
            name: "PLAYER".into(),
            subjects: wanted().subjects(),
            max_age: Duration::from_secs(72 * 3600),
            num_replicas: 3,
            duplicate_window: Duration::from_secs(120),
            ..Config::default()
        }
    }

    #[test]
    fn every_property_of_a_stream_has_a_judgement() {
        type Change = fn(&mut Config);
        let table: [(&Check, Severity, Change); 12] = [
            (&SUBJECTS, Error, |stream| stream.subjects = vec!["events.player".into()]),
            (&ACKNOWLEDGEMENT, Error, |stream| stream.no_ack = true),
            (&ACKNOWLEDGEMENT, Error, |stream| stream.persist_mode = Some(PersistenceMode::Async)),
            (&STORAGE, Error, |stream| stream.storage = StorageType::Memory),
            (&REPLICAS, Warning, |stream| stream.num_replicas = 1),
            (&RETENTION, Warning, |stream| stream.max_messages = 1000),
            (&RETENTION, Warning, |stream| stream.max_bytes = 1000),
            (&RETENTION, Ok, |stream| (stream.max_messages, stream.discard) = (1000, DiscardPolicy::New)),
            (&RETENTION, Warning, |stream| stream.max_age = Duration::from_secs(3600)),
            (&RETENTION, Warning, |stream| stream.retention = RetentionPolicy::Interest),
            (&RETENTION, Ok, |stream| stream.max_age = Duration::ZERO),
            (&DUPLICATES, Warning, |stream| stream.duplicate_window = Duration::from_secs(14)),
        ];
        assert!(judge_stream(&wanted(), &good(), &DEMANDS).iter().all(|finding| finding.severity == Ok));
        for (check, severity, change) in table {
            let mut stream = good();
            change(&mut stream);
            for finding in judge_stream(&wanted(), &stream, &DEMANDS) {
                let expected = if finding.check == check { severity } else { Ok };
                assert_eq!(finding.severity, expected, "{finding:?}");
                assert_eq!(finding.fix.is_empty(), expected == Ok, "{finding:?}");
            }
        }
    }

    #[test]
    fn every_property_of_a_server_has_a_judgement() {
        for (finding, severity) in [
            (judge_version("2.12.0"), Ok),
            (judge_version("2.11.9"), Warning),
            (judge_tls(true, false), Ok),
            (judge_tls(false, true), Ok),
            (judge_tls(false, false), Warning),
            (judge_payload(8 << 20, 8 << 20), Ok),
            (judge_payload(1 << 20, 8 << 20), Warning),
            (judge_monitoring(Result::Ok(r#"{"jetstream":{"config":{"sync_always":true}}}"#)), Ok),
            (judge_monitoring(Result::Ok(r#"{"jetstream":{"config":{"sync_interval":120000000000}}}"#)), Warning),
            (judge_monitoring(Result::Ok("<html>")), Warning),
            (judge_monitoring(Err("refused")), Warning),
        ] {
            assert_eq!(finding.severity, severity, "{finding:?}");
        }
    }

    #[test]
    fn only_a_loopback_address_is_this_machine() {
        for (host, expected) in
            [("localhost", true), ("127.0.0.2", true), ("[::1]", true), ("10.0.0.1", false), ("nats", false)]
        {
            assert_eq!(is_this_machine(host), expected, "{host}");
        }
    }
}
