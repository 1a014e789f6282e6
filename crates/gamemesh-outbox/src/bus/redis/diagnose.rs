//! What can be wrong with a Redis server: above all, whether an acknowledged event is kept.

use std::collections::HashMap;
use std::net::IpAddr;

use async_trait::async_trait;
use redis::ConnectionAddr;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

use super::keeping::{deletes_any_stream, of_stream};
use super::{CHECK_TIMEOUT, RedisBus};
use crate::diagnosis::{Demands, Diagnose, Finding, checks, version};
use crate::store::HealthCheck;

checks! {
    CONNECTION = "redis.connection", "whether the server answers", "no event is published";
    VERSION = "redis.version", "the server's version", "streams need 5.0; fixes no longer reach versions before 6.2";
    TLS = "redis.tls", "whether the connection is encrypted",
        "whoever can read the network reads payloads and the password";
    MODE = "redis.mode", "whether this is a server of its own or a node of a Redis Cluster",
        "a node takes only its part of the topics";
    ROLE = "redis.role", "whether this is the primary", "a replica takes no events";
    APPEND_ONLY = "redis.appendonly", "appendonly and appendfsync",
        "a restart or a crash loses acknowledged events: all since the last snapshot, or the last second";
    EVICTION = "redis.maxmemory_policy", "whether a full server deletes keys",
        "under pressure the server deletes whole streams, with events that nobody has read";
    REPLICAS = "redis.replicas", "connected replicas against OUTBOX_REDIS_WAIT_REPLICAS",
        "with too few, no publish is ever complete; with none to wait for, a failover loses what was not yet copied";
    PARTITION = "redis.min_replicas_to_write", "min-replicas-to-write, where there are replicas",
        "a primary that is cut off goes on acknowledging events that the failover throws away";
    TOPICS = "redis.topics", "what lies at the key of each topic for which events wait, and for how long",
        "nothing can be appended to another type of value, and what has a time to live goes away with every event in it";
}

/// The server, as it describes itself.
#[derive(Clone, Debug)]
struct Facts {
    version: String,
    mode: String,
    role: String,
    connected_replicas: u32,
    /// `None` where this user may not ask.
    settings: Option<HashMap<String, String>>,
}

/// What lies at the key of a topic.
#[derive(Clone, Debug)]
struct Topic {
    name: String,
    kind: String,
    /// As PTTL says it; `None` where this user may not ask.
    lives: Option<i64>,
}

#[async_trait]
impl Diagnose for RedisBus {
    async fn reach(&self) -> Result<(), String> {
        self.check().await
    }

    async fn diagnose(&self, demands: &Demands) -> Vec<Finding> {
        let deadline = Instant::now() + self.inner.config.publish_timeout.max(CHECK_TIMEOUT);
        match timeout_at(deadline, self.facts(deadline)).await.unwrap_or_else(late) {
            Ok(facts) => {
                let mut findings = vec![CONNECTION.ok("connected"), judge_version(&facts.version)];
                findings.push(judge_tls(self.inner.client.last().get_connection_info().addr()));
                findings.extend(judge(&facts, self.inner.config.wait_replicas));
                let topics = timeout_at(deadline, self.topics(&demands.topics, deadline)).await;
                findings.extend(judge_topics(topics.unwrap_or_else(late)));
                findings
            }
            Err(problem) => vec![match problem.split_once("; hint: ") {
                Some((problem, hint)) if problem.contains("Redis Cluster") => MODE.error(problem, hint),
                Some((problem, hint)) => CONNECTION.error(problem, hint),
                None => CONNECTION.error(problem.as_str(), fix_of_connection(&problem)),
            }],
        }
    }
}

fn late<T>(_: Elapsed) -> Result<T, String> {
    Err("Redis did not answer in time".to_owned())
}

impl RedisBus {
    /// Looks at the key of each topic.
    async fn topics(&self, topics: &[String], deadline: Instant) -> Result<Vec<Topic>, String> {
        let mut connection = self.inner.reach(deadline).await.map_err(|error| error.chain())?;
        let mut found = Vec::new();
        for name in topics {
            let kind = redis::cmd("TYPE").arg(name).query_async::<String>(&mut connection.link).await;
            let kind = kind.map_err(|error| super::refused(&error).chain())?;
            let lives = redis::cmd("PTTL").arg(name).query_async::<i64>(&mut connection.link).await;
            found.push(Topic { name: name.clone(), kind, lives: lives.ok() });
        }
        Ok(found)
    }

    async fn facts(&self, deadline: Instant) -> Result<Facts, String> {
        let mut connection = self.inner.reach(deadline).await.map_err(|error| error.chain())?;
        let info = redis::cmd("INFO").query_async::<String>(&mut connection.link).await;
        let info = info.map_err(|error| super::refused(&error).chain())?;
        // One pattern for each: several at once are known since 7.0 only.
        let mut settings = Some(HashMap::new());
        for name in ["append*", "maxmemory*", "min-replicas-to-write"] {
            let asked = redis::cmd("CONFIG")
                .arg("GET")
                .arg(name)
                .query_async::<HashMap<String, String>>(&mut connection.link)
                .await;
            match (asked, &mut settings) {
                (Ok(asked), Some(settings)) => settings.extend(asked),
                _ => settings = None,
            }
        }
        let field = |name: &str| {
            info.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        Ok(Facts {
            version: field("redis_version"),
            mode: field("redis_mode"),
            role: field("role"),
            connected_replicas: field("connected_slaves").parse().unwrap_or_default(),
            settings,
        })
    }
}

fn judge_topics(topics: Result<Vec<Topic>, String>) -> Vec<Finding> {
    let topics = match topics {
        Ok(topics) => topics,
        Err(problem) => {
            let fix = "allow the relay's user to ask: ACL SETUSER ... +type +pttl";
            return vec![TOPICS.warning(format!("not known: {problem}"), fix)];
        }
    };
    let findings: Vec<Finding> = topics.iter().filter_map(judge_topic).collect();
    if findings.is_empty() {
        vec![TOPICS.ok("every topic for which events wait has its stream, or will get one")]
    } else {
        findings
    }
}

fn judge_topic(Topic { name, kind, lives }: &Topic) -> Option<Finding> {
    if !["stream", "none"].contains(&kind.as_str()) {
        let found = format!("events of topic {name} wait, and at that key lies a {kind}, which takes none");
        let fix =
            format!("rename what lies there, or have the producer name another topic:\nRENAME {name} {name}.other");
        return Some(TOPICS.error(found, fix));
    }
    let risk = of_stream(*lives, false)?;
    let (found, _) = risk.split_once("; hint: ").unwrap_or((&risk, ""));
    Some(TOPICS.warning(format!("stream {name} {found}"), format!("find out who sets it, and:\nPERSIST {name}")))
}

fn judge_version(text: &str) -> Finding {
    let found = format!("Redis {text}");
    match version(text) {
        (..5, _) => VERSION.error(found, "upgrade to Redis 7 or newer"),
        older if older < (6, 2) => VERSION.warning(found, "upgrade to Redis 7 or newer"),
        _ => VERSION.ok(found),
    }
}

fn judge_tls(address: &ConnectionAddr) -> Finding {
    let here = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match address {
        ConnectionAddr::TcpTls { .. } => TLS.ok("encrypted"),
        ConnectionAddr::Tcp(host, _) if !here(host) => TLS.warning(
            "not encrypted",
            "give the server certificates (tls-port in redis.conf) and write rediss:// in REDIS_URL",
        ),
        _ => TLS.ok("not encrypted, but nothing leaves this machine"),
    }
}

fn judge(facts: &Facts, wait_replicas: u32) -> Vec<Finding> {
    let mut findings = vec![judge_mode(&facts.mode), judge_role(&facts.role)];
    match &facts.settings {
        Some(settings) => {
            let setting = |name: &str| settings.get(name).map_or("", String::as_str);
            findings.push(judge_append_only(setting("appendonly"), setting("appendfsync")));
            findings.push(judge_eviction(setting("maxmemory-policy"), setting("maxmemory")));
            findings.push(judge_replicas(facts.connected_replicas, wait_replicas));
            let at_least = setting("min-replicas-to-write").parse().unwrap_or(0);
            findings.push(judge_partition(facts.connected_replicas, at_least));
        }
        None => {
            let fix = "ACL SETUSER the-relay +config|get";
            findings.extend([&APPEND_ONLY, &EVICTION, &PARTITION].map(|check| {
                check.warning("not known: this user may not read the server's settings (CONFIG GET)", fix)
            }));
            findings.push(judge_replicas(facts.connected_replicas, wait_replicas));
        }
    }
    findings
}

fn judge_mode(mode: &str) -> Finding {
    match mode {
        "cluster" => MODE.warning(
            "the only primary of a Redis Cluster: once there are more, this relay does not speak to it",
            "name a Redis server that is not in cluster mode in REDIS_URL",
        ),
        mode => MODE.ok(if mode.is_empty() { "standalone" } else { mode }),
    }
}

fn judge_role(role: &str) -> Finding {
    match role {
        "master" => ROLE.ok("the primary"),
        role => ROLE.error(format!("expected the primary, got the role {role:?}"), "name the primary in REDIS_URL"),
    }
}

fn judge_append_only(append_only: &str, fsync: &str) -> Finding {
    const SAVE: &str = "CONFIG REWRITE";
    match (append_only, fsync) {
        ("yes", "always") => APPEND_ONLY.ok("each event is on the disk before it is acknowledged"),
        ("yes", fsync) => APPEND_ONLY.warning(
            format!("appendfsync is {fsync}: a crash of the machine loses what came since the last sync"),
            format!("CONFIG SET appendfsync always\n{SAVE}"),
        ),
        _ => APPEND_ONLY.error(
            "appendonly is off: acknowledged events are in memory only, until the next snapshot",
            format!("CONFIG SET appendonly yes\nCONFIG SET appendfsync always\n{SAVE}"),
        ),
    }
}

fn judge_eviction(policy: &str, max_memory: &str) -> Finding {
    const FIX: &str = "CONFIG SET maxmemory-policy noeviction\nCONFIG REWRITE";
    if policy == "noeviction" {
        return EVICTION.ok("noeviction: a full server refuses, and events wait in the outbox");
    }
    if deletes_any_stream(policy, max_memory) {
        return EVICTION.error(format!("maxmemory-policy is {policy}: any stream may be deleted"), FIX);
    }
    let not_yet = if max_memory == "0" { ", though no maxmemory is set yet" } else { "" };
    EVICTION.warning(format!("maxmemory-policy is {policy}{not_yet}"), FIX)
}

fn judge_replicas(connected: u32, waited_for: u32) -> Finding {
    let found = format!("{connected} connected, and a publish waits for {waited_for}");
    match (connected, waited_for) {
        (0, 0) => REPLICAS.warning(
            format!("{found}: events are on one machine"),
            "on another machine: REPLICAOF <this host> <port>; then OUTBOX_REDIS_WAIT_REPLICAS=1",
        ),
        (_, 0) => REPLICAS.warning(found, "OUTBOX_REDIS_WAIT_REPLICAS=1"),
        (connected, waited_for) if connected < waited_for => {
            REPLICAS.error(found, format!("connect more replicas, or OUTBOX_REDIS_WAIT_REPLICAS={connected}"))
        }
        _ => REPLICAS.ok(found),
    }
}

fn judge_partition(connected: u32, at_least: u32) -> Finding {
    match (connected, at_least) {
        (0, 0) => PARTITION.ok("there are no replicas, so there is no failover"),
        (_, 0) => PARTITION.warning("min-replicas-to-write is 0", "CONFIG SET min-replicas-to-write 1\nCONFIG REWRITE"),
        (_, at_least) => PARTITION.ok(format!("a primary with fewer than {at_least} replicas takes no events")),
    }
}

/// Says what makes a connection possible.
fn fix_of_connection(problem: &str) -> &'static str {
    let says = |word| problem.contains(word);
    if says("NOAUTH") || says("WRONGPASS") {
        "correct user and password in REDIS_URL: redis://user:password@host"
    } else if says("max number of clients") {
        "raise maxclients, or end what holds so many connections: CLIENT LIST names it"
    } else {
        "start redis-server, or correct REDIS_URL"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Severity::{Error, Ok, Warning};

    #[test]
    fn every_property_has_a_judgement() {
        for (finding, severity) in [
            (judge_version("7.2.4"), Ok),
            (judge_version("6.0.16"), Warning),
            (judge_version("4.0.9"), Error),
            (judge_mode("standalone"), Ok),
            (judge_mode("cluster"), Warning),
            (judge_role("master"), Ok),
            (judge_role("slave"), Error),
            (judge_append_only("yes", "always"), Ok),
            (judge_append_only("yes", "everysec"), Warning),
            (judge_append_only("yes", "no"), Warning),
            (judge_append_only("no", "always"), Error),
            (judge_eviction("noeviction", "100"), Ok),
            (judge_eviction("allkeys-lru", "100"), Error),
            (judge_eviction("allkeys-lru", "0"), Warning),
            (judge_eviction("volatile-ttl", "100"), Warning),
            (judge_replicas(0, 0), Warning),
            (judge_replicas(2, 0), Warning),
            (judge_replicas(1, 2), Error),
            (judge_replicas(2, 2), Ok),
            (judge_partition(0, 0), Ok),
            (judge_partition(1, 0), Warning),
            (judge_partition(1, 1), Ok),
        ] {
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert_eq!(finding.fix.is_empty(), severity == Ok, "{finding:?}");
        }
    }

    #[test]
    fn a_key_that_takes_or_keeps_no_event_is_named_for_the_topic_that_waits() {
        let types = |kind: &str, lives| {
            Result::Ok(vec![Topic { name: "events.player".to_owned(), kind: kind.to_owned(), lives }])
        };
        for (types, severity, said) in [
            (types("stream", Some(-1)), Ok, "has its stream"),
            (types("stream", None), Ok, "has its stream"),
            (types("stream", Some(90_000)), Warning, "stream events.player is deleted in 90 s"),
            (types("none", Some(-2)), Ok, "will get one"),
            (types("hash", Some(-1)), Error, "events of topic events.player wait, and at that key lies a hash"),
            (Result::Err("NOPERM".to_owned()), Warning, "not known: NOPERM"),
        ] {
            let [finding] = &judge_topics(types)[..] else { panic!("one finding") };
            assert_eq!(finding.severity, severity);
            assert!(finding.found.contains(said), "{}", finding.found);
        }
    }

    #[test]
    fn what_may_not_be_asked_is_said_and_the_rest_is_judged() {
        let facts = Facts {
            version: "7.2.4".into(),
            mode: "standalone".into(),
            role: "master".into(),
            connected_replicas: 1,
            settings: None,
        };
        let findings = judge(&facts, 1);
        assert_eq!(findings.iter().filter(|finding| finding.found.starts_with("not known")).count(), 3);
        assert!(findings.iter().any(|finding| finding.check == &REPLICAS && finding.severity == Ok));
    }

    #[test]
    fn a_remote_server_without_tls_is_a_risk() {
        for (url, severity) in [
            ("redis://127.0.0.1", Ok),
            ("redis://[::1]:6379", Ok),
            ("redis://cache.internal", Warning),
            ("rediss://cache.internal", Ok),
        ] {
            let client = redis::Client::open(url).unwrap();
            assert_eq!(judge_tls(client.get_connection_info().addr()).severity, severity, "{url}");
        }
    }
}
