//! What can be wrong with a NATS server and its streams: above all, whether an acknowledged event is kept.
//!
//! One thing no client can see: whether the server syncs what it stores to the disk. It is told on the server's
//! monitoring port, whose answer [`judge_monitoring`] reads.

use std::net::IpAddr;
use std::time::Duration;

use async_nats::ServerInfo;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy};
use async_trait::async_trait;
use serde::Deserialize;
use tokio::time::timeout;

use super::api::{Described, Problem};
#[cfg(test)]
use super::risks::risks;
use super::risks::{About, Effect, Risk, covers};
use super::{CHECK_TIMEOUT, Inner, NatsBus, StreamConfig};
use crate::diagnosis::{Check, Demands, Diagnose, Finding, checks, span, version};

checks! {
    CONNECTION = "nats.connection", "whether the server answers and JetStream is enabled", "no event is published";
    VERSION = "nats.version", "the server's version",
        "the relay is tested with 2.12 and newer; fixes no longer reach older servers";
    TLS = "nats.tls", "whether the connection is encrypted",
        "whoever can read the network reads payloads and passwords";
    PAYLOAD = "nats.max_payload", "the server's max_payload against OUTBOX_PAYLOAD_BYTES_MAX",
        "an event between the two limits is refused each time and ends as a dead letter";
    STREAM = "nats.stream", "whether each configured topic has a stream, whatever its name",
        "its events stay in the outbox: nothing stores them";
    SUBJECTS = "nats.subjects", "whether a stream takes all subjects of each configured topic, and of each that waits",
        "events of the other subjects stay in the outbox";
    ACKNOWLEDGEMENT = "nats.acknowledgement", "whether each stream acknowledges what it has stored: no_ack, seal, mirror, persist mode",
        "nothing can be published to it, or it is acknowledged before it is stored and lost in a crash";
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

#[async_trait]
impl Diagnose for NatsBus {
    async fn reach(&self) -> Result<(), String> {
        self.inner.connected().map_err(|error| error.chain())?;
        // Any answer will do. A stream of this name cannot be asked for by accident.
        let asked = self.inner.describe("outbox-doctor-asks");
        match timeout(CHECK_TIMEOUT, asked).await {
            Ok(Ok(_) | Err(Problem::Denied(_) | Problem::Stream(_))) => Ok(()),
            Ok(Err(Problem::Bus(error))) => Err(error.chain()),
            Err(_) => Err("JetStream did not answer in time".to_owned()),
        }
    }

    async fn diagnose(&self, demands: &Demands) -> Vec<Finding> {
        if let Err(problem) = self.reach().await {
            let fix = "start nats-server with JetStream (`nats-server -js`), or correct NATS_URL and its credentials; if \
                       JetStream lives in another domain, behind a leaf node, set OUTBOX_NATS_JETSTREAM_DOMAIN";
            return vec![CONNECTION.error(problem, fix)];
        }
        let info = self.inner.client.server_info();
        let mut findings = vec![
            CONNECTION.ok(self.inner.place(&info).await),
            judge_version(&info.version),
            self.inner.judge_tls(&info),
            judge_payload(info.max_payload as u64, demands.payload_bytes_max),
        ];
        for stream in self.inner.wanted(demands) {
            match timeout(CHECK_TIMEOUT, self.inner.examine(&stream, demands)).await {
                Ok(Ok(found)) => findings.extend(found),
                Ok(Err(problem)) => findings.push(unknown(&stream, &problem.text())),
                Err(_) => findings.push(unknown(&stream, "JetStream did not answer in time")),
            }
        }
        findings
    }
}

impl Inner {
    /// Says where the connection leads: a server may pass questions on to another's JetStream.
    async fn place(&self, info: &ServerInfo) -> String {
        let own = if info.jetstream { "" } else { " (it has no JetStream of its own)" };
        let domain = match timeout(CHECK_TIMEOUT, self.domain()).await {
            Ok(Ok(domain)) if domain.is_empty() => "without a domain".to_owned(),
            Ok(Ok(domain)) => format!("of the domain {domain}"),
            // Permitted to few.
            Ok(Err(_)) | Err(_) => "of a domain that is not told".to_owned(),
        };
        format!("connected to {}{own}; JetStream {domain} answers", info.server_name)
    }

    /// Lists the configured streams, and as streams without a name the topics for which events wait.
    fn wanted(&self, demands: &Demands) -> Vec<StreamConfig> {
        let mut wanted = self.config.streams.clone();
        let covered =
            |topic: &String| wanted.iter().flat_map(StreamConfig::subjects).any(|known| covers(&known, topic));
        let waiting: Vec<&String> = demands.topics.iter().filter(|topic| !covered(topic)).collect();
        let nameless = |topic: &String| StreamConfig::new("", [topic]);
        wanted.extend(waiting.into_iter().map(nameless));
        wanted
    }

    /// Examines the stream of that name, or those that take its subjects instead.
    async fn examine(&self, wanted: &StreamConfig, demands: &Demands) -> Result<Vec<Finding>, Problem> {
        let found = if wanted.name.is_empty() { None } else { self.describe(&wanted.name).await? };
        let needed = !wanted.by_default || takes_any(&wanted.subjects(), &demands.topics);
        match found {
            Some(found) if needed || found.last_sequence() != Some(0) => {
                return Ok(self.judge_stream(wanted, &found, demands).await);
            }
            Some(_) => {
                return Ok(vec![
                    STREAM.ok(format!("stream {} exists, and nothing was ever stored in it", wanted.name)),
                ]);
            }
            None if !needed => return Ok(vec![unneeded(wanted)]),
            None => {}
        }
        let mut names = Vec::new();
        for subject in wanted.subjects() {
            names.extend(self.names(&subject).await?);
        }
        names.sort_unstable();
        names.dedup();
        let mut others = Vec::new();
        for name in names {
            others.extend(self.describe(&name).await?);
        }
        if others.is_empty() {
            return Ok(vec![self.missing(wanted)]);
        }
        let subjects: Vec<String> = others.iter().flat_map(|other| other.config.subjects.clone()).collect();
        let missing: Vec<String> = not_covered(wanted, &subjects);
        let mut findings = Vec::new();
        for other in &others {
            let takes = StreamConfig { name: other.config.name.clone(), ..StreamConfig::default() };
            findings.extend(self.judge_stream(&takes, other, demands).await);
        }
        findings.push(judge_subjects(&others[0].config.name, &subjects, &missing));
        Ok(findings)
    }

    async fn judge_stream(&self, wanted: &StreamConfig, found: &Described, demands: &Demands) -> Vec<Finding> {
        judge_stream(wanted, &found.config, &self.risks_of(found).await, demands)
    }
}

impl Inner {
    fn judge_tls(&self, info: &ServerInfo) -> Finding {
        let servers = self.config.servers().map(|servers| servers.addresses).unwrap_or_default();
        let asked_for = !servers.is_empty() && servers.iter().all(async_nats::ServerAddr::tls_required);
        let here = servers.iter().all(|server| is_this_machine(server.host()));
        judge_tls(asked_for || info.tls_required, here)
    }

    fn missing(&self, wanted: &StreamConfig) -> Finding {
        let config = self.config.stream(wanted);
        let topics = wanted.topics.join(", ");
        let name = if wanted.name.is_empty() { "NAME" } else { &wanted.name };
        let start = match wanted.name.is_empty() {
            true => {
                format!("name a stream for it (OUTBOX_NATS_STREAMS=...,{name}={topics}) and restart the relay, or:")
            }
            false => "start the relay, which creates it (one that runs does not), or:".to_owned(),
        };
        let fix = format!(
            "{start}\nnats stream add {name} --subjects '{}' --storage file --replicas {} --retention limits --discard old \
             --max-age {}s --dupe-window {}s --defaults",
            wanted.subjects().join(","),
            config.num_replicas,
            config.max_age.as_secs(),
            config.duplicate_window.as_secs().max(1),
        );
        STREAM.error(
            match wanted.name.is_empty() {
                true => format!("no stream takes the topic {topics}, and events wait for it"),
                false => format!("stream {name} does not exist, and no other takes {topics}"),
            },
            fix,
        )
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

/// Says whether the server is a leaf node, by the same body: then other JetStreams may be behind it.
pub fn judge_leaf(varz: &str) -> Option<Finding> {
    #[derive(Deserialize)]
    struct Varz {
        leaf: Leaf,
    }
    #[derive(Deserialize)]
    struct Leaf {
        remotes: Vec<serde_json::Value>,
    }
    let leaf = serde_json::from_str::<Varz>(varz).is_ok_and(|varz| !varz.leaf.remotes.is_empty());
    leaf.then(|| {
        CONNECTION.ok(
            "the server is a leaf node of another: OUTBOX_NATS_JETSTREAM_DOMAIN says which JetStream is meant, where several \
             have a stream for the same subjects",
        )
    })
}

/// Says that nobody told where the monitoring port is.
pub fn monitoring_not_configured() -> Finding {
    judge_monitoring(Err("OUTBOX_NATS_MONITORING_URL is not set"))
}

fn unknown(stream: &StreamConfig, why: &str) -> Finding {
    let what = if stream.name.is_empty() { stream.topics.join(", ") } else { format!("stream {}", stream.name) };
    let fix = "allow the relay's user to publish to JetStream's STREAM.NAMES, STREAM.INFO.* and CONSUMER.LIST.*, below $JS.API \
               or what OUTBOX_NATS_JETSTREAM_DOMAIN makes of it";
    STREAM.warning(format!("{what}: not known: {why}"), fix)
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
            format!(
                "in nats-server.conf: max_payload: {}\n-- and `nats-server --signal reload`: relays notice with the next event \
                 that is too large\nor OUTBOX_PAYLOAD_BYTES_MAX={server}",
                relay + 64 * 1024
            ),
        ),
    }
}

fn judge_stream(wanted: &StreamConfig, found: &Config, risks: &[Risk], demands: &Demands) -> Vec<Finding> {
    let name = &wanted.name;
    let missing = not_covered(wanted, &found.subjects);
    vec![
        STREAM.ok(format!("stream {name} exists")),
        judge_subjects(name, &found.subjects, &missing),
        judge_risk(&ACKNOWLEDGEMENT, name, risks, About::Acknowledgement, || {
            "acknowledges what it has stored".to_owned()
        }),
        judge_risk(&STORAGE, name, risks, About::Storage, || "is kept in files".to_owned()),
        judge_drift(&REPLICAS, name, risks, About::Replicas, || judge_replicas(name, found)),
        judge_risk(&RETENTION, name, risks, About::Retention, || kept(found)),
        judge_drift(&DUPLICATES, name, risks, About::Duplicates, || judge_duplicates(name, found, demands)),
    ]
}

/// Says whether a stream of these subjects takes any of these topics.
fn takes_any(subjects: &[String], topics: &[String]) -> bool {
    topics.iter().any(|topic| subjects.iter().any(|pattern| covers(pattern, topic)))
}

fn unneeded(wanted: &StreamConfig) -> Finding {
    STREAM.ok(format!(
        "stream {} of the default list does not exist, and no event waits for it: a relay that starts makes it",
        wanted.name
    ))
}

fn not_covered(wanted: &StreamConfig, subjects: &[String]) -> Vec<String> {
    let is_missing = |subject: &String| !subjects.iter().any(|pattern| covers(pattern, subject));
    wanted.subjects().into_iter().filter(is_missing).collect()
}

fn judge_subjects(name: &str, subjects: &[String], missing: &[String]) -> Finding {
    if missing.is_empty() {
        return SUBJECTS.ok(format!("stream {name} takes all subjects of its topics"));
    }
    let all = [subjects, missing].concat().join(",");
    SUBJECTS.error(
        format!("stream {name} does not take {}", missing.join(", ")),
        format!("nats stream edit {name} --subjects '{all}' --force"),
    )
}

/// Reports what a relay would warn of.
fn judge_risk(
    check: &'static Check,
    name: &str,
    risks: &[Risk],
    about: About,
    well: impl FnOnce() -> String,
) -> Finding {
    let of_this: Vec<&Risk> = risks.iter().filter(|risk| risk.about == about).collect();
    if of_this.is_empty() {
        return check.ok(format!("stream {name} {}", well()));
    }
    let join = |text: fn(&Risk) -> &str, by: &str| of_this.iter().map(|risk| text(risk)).collect::<Vec<_>>().join(by);
    let found = format!("stream {name} {}", join(|risk| &risk.found, "; it "));
    let fix = join(|risk| &risk.fix, "\n");
    match of_this.iter().any(|risk| !matches!(risk.effect, Effect::Vanishes | Effect::Differs)) {
        true => check.error(found, fix),
        false => check.warning(found, fix),
    }
}

/// Reports that a stream keeps less than is configured, and otherwise what `else_` makes of it.
fn judge_drift(
    check: &'static Check,
    name: &str,
    risks: &[Risk],
    about: About,
    else_: impl FnOnce() -> Finding,
) -> Finding {
    match risks.iter().any(|risk| risk.about == about) {
        true => judge_risk(check, name, risks, about, String::new),
        false => else_(),
    }
}

fn kept(found: &Config) -> String {
    let age = match found.max_age.is_zero() {
        true => "for ever".to_owned(),
        false => format!("for {}", span(found.max_age.as_secs_f64())),
    };
    let read = match found.retention {
        RetentionPolicy::WorkQueue => ", until a consumer has read them",
        RetentionPolicy::Interest => ", until each consumer has read them",
        RetentionPolicy::Limits => "",
    };
    let limited = found.max_messages > 0 || found.max_bytes > 0;
    let full = if limited && found.discard == DiscardPolicy::New { ", and refuses more when it is full" } else { "" };
    format!("keeps messages {age}{read}{full}")
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
    use async_nats::jetstream::stream::{PersistenceMode, StorageType};

    use super::super::drift::drift;
    use crate::diagnosis::Severity::{self, Error, Ok, Warning};

    const DEMANDS: Demands = Demands {
        deletes: false,
        payload_bytes_max: 8 << 20,
        retry_span: Duration::from_secs(15),
        long_transaction: Duration::from_secs(60),
        topics: Vec::new(),
    };

    fn wanted() -> StreamConfig {
        StreamConfig::new("PLAYER", ["events.player"])
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

    fn judge(stream: &Config) -> Vec<Finding> {
        let mut risks = risks(stream, Some(&[]), Duration::from_secs(72 * 3600));
        let asked = StreamConfig {
            replicas: Some(3),
            duplicate_window: Some(Duration::from_secs(120)),
            max_age: Some(Duration::from_secs(72 * 3600)),
            ..wanted()
        };
        risks.extend(drift(&asked, stream));
        judge_stream(&wanted(), stream, &risks, &DEMANDS)
    }

    #[test]
    fn every_property_of_a_stream_has_a_judgement() {
        type Change = fn(&mut Config);
        let table: [(&Check, Severity, Change); 16] = [
            (&SUBJECTS, Error, |stream| stream.subjects = vec!["events.player".into()]),
            (&ACKNOWLEDGEMENT, Error, |stream| stream.no_ack = true),
            (&ACKNOWLEDGEMENT, Error, |stream| stream.sealed = true),
            (&ACKNOWLEDGEMENT, Error, |stream| stream.persist_mode = Some(PersistenceMode::Async)),
            (&STORAGE, Error, |stream| stream.storage = StorageType::Memory),
            (&REPLICAS, Warning, |stream| stream.num_replicas = 1),
            (&RETENTION, Warning, |stream| stream.max_messages = 1000),
            (&RETENTION, Warning, |stream| stream.max_messages_per_subject = 1),
            (&RETENTION, Ok, |stream| (stream.max_messages, stream.discard) = (1000, DiscardPolicy::New)),
            (&RETENTION, Warning, |stream| stream.max_age = Duration::from_secs(3600)),
            (&RETENTION, Warning, |stream| stream.retention = RetentionPolicy::Interest),
            (&RETENTION, Ok, |stream| stream.retention = RetentionPolicy::WorkQueue),
            (&RETENTION, Ok, |stream| stream.max_age = Duration::ZERO),
            (&DUPLICATES, Warning, |stream| stream.duplicate_window = Duration::from_secs(14)),
            (&DUPLICATES, Warning, |stream| stream.duplicate_window = Duration::from_secs(119)),
            (&RETENTION, Warning, |stream| stream.max_age = Duration::from_secs(71 * 3600)),
        ];
        assert!(judge(&good()).iter().all(|finding| finding.severity == Ok));
        for (check, severity, change) in table {
            let mut stream = good();
            change(&mut stream);
            for finding in judge(&stream) {
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
    fn a_leaf_node_is_told_by_its_remotes() {
        assert!(judge_leaf(r#"{"leaf":{"remotes":[{"local_account":"$G"}]}}"#).is_some());
        for other in [r#"{"leaf":{"remotes":[]}}"#, r#"{"leaf":{}}"#, "{}", "<html>"] {
            assert!(judge_leaf(other).is_none(), "{other}");
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
