//! NATS JetStream.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::bus;
use gamemesh_outbox::bus::nats::{self, NatsBus, NatsConfig, StreamConfig};
#[cfg(feature = "read-back")]
use gamemesh_outbox::bus::read_back::ReadBack;
use gamemesh_outbox::diagnosis::{Demands, Finding};

#[cfg(feature = "read-back")]
use super::OwnPlace;
use super::{Bus, BusAdapter, BusDemands, invalid, tls_files};
use crate::http_client::http_get;
use crate::report::CommandError;
use crate::settings::contradictions::Consequence::{Refused, Told};
use crate::settings::contradictions::{Contradiction, is_chosen, one_without_the_other};
use crate::settings::load::Values;
use crate::settings::types::Secret;
use crate::settings::values::{duration, flag, http_url, path, positive_duration, present, secret, whole};
use crate::settings::{About, DURATION, FLAG, PEM_FILE, POSITIVE_DURATION, settings};

settings! {
    SETTINGS:
    URL: Secret {
        env: "NATS_URL", key: "nats.url", default: Some("nats://127.0.0.1:4222"),
        expected: "one or more URLs separated by commas, such as nats://127.0.0.1:4222",
        help: "The NATS servers.";
        parse: secret, secret: true,
    }
    CREDENTIALS: PathBuf {
        env: "NATS_CREDENTIALS_FILE", key: "nats.credentials_file", default: None,
        expected: "the path of a .creds file",
        help: "A NATS credentials file (JWT and key), or one that holds the seed of an nkey alone. Goes before the login in \
               NATS_URL.";
        parse: path, names_secret: true,
    }
    CA: PathBuf {
        env: "OUTBOX_NATS_CA_FILE", key: "nats.ca_file", default: None, expected: PEM_FILE,
        help: "The authorities whose certificates are believed, instead of the operating system's. With it, or with a client \
               certificate, the connection must be encrypted, as with tls:// in NATS_URL.";
        parse: path,
    }
    CERT: PathBuf {
        env: "OUTBOX_NATS_CERT_FILE", key: "nats.cert_file", default: None, expected: PEM_FILE,
        help: "A client certificate for NATS.";
        parse: path,
    }
    KEY: PathBuf {
        env: "OUTBOX_NATS_KEY_FILE", key: "nats.key_file", default: None, expected: PEM_FILE,
        help: "The key of that certificate.";
        parse: path, names_secret: true,
    }
    TLS_FIRST: bool {
        env: "OUTBOX_NATS_TLS_FIRST", key: "nats.tls_first", default: Some("false"), expected: FLAG,
        help: "Whether the connection is encrypted before the server has said a word: for servers with handshake_first.";
        parse: flag,
    }
    JETSTREAM_DOMAIN: String {
        env: "OUTBOX_NATS_JETSTREAM_DOMAIN", key: "nats.jetstream_domain", default: None,
        expected: "the name of a JetStream domain, such as hub",
        help: "The JetStream that is meant, where NATS_URL leads to a server of another domain or of none: a leaf node. Unset: \
               the one that answers there.";
        parse: token,
    }
    JETSTREAM_API_PREFIX: String {
        env: "OUTBOX_NATS_JETSTREAM_API_PREFIX", key: "nats.jetstream_api_prefix", default: None,
        expected: "a subject without wildcards, such as $JS.hub.API",
        help: "Where JetStream is asked, if its API is imported from another account under a name of its own. Instead of a \
               domain.";
        parse: subject,
    }
    INBOX_PREFIX: String {
        env: "OUTBOX_NATS_INBOX_PREFIX", key: "nats.inbox_prefix", default: Some("_INBOX"),
        expected: "a subject without wildcards, such as _INBOX_relay",
        help: "What the subjects begin with on which answers are received. The login must be permitted to subscribe to \
               everything below it.";
        parse: subject,
    }
    STREAMS: Vec<StreamConfig> {
        env: "OUTBOX_NATS_STREAMS", key: "nats.streams",
        default: Some(
            "MATCHMAKING=events.matchmaking;age=24h,LEADERBOARD=events.leaderboard;age=1h,PLAYER=events.player;age=72h,\
             PRESENCE=events.presence;age=15m"
        ),
        expected: "streams and their topics, such as PLAYER=events.player;age=72h;replicas=3,GITHUB=events.github|events.hub, or \
                   none",
        help: "The JetStream streams to make at the start where they are missing. A stream takes each of its topics and \
               everything below it, and may have an age and replicas of its own. One that was there and goes is not made again \
               before a restart; where another stream takes the subjects, none is made, and one that exists is never changed. \
               Those of the default list are missed only once an event needs them. none makes none.";
        parse: streams, no_value: "none",
    }
    STREAM_MAX_AGE: Duration {
        env: "OUTBOX_NATS_STREAM_MAX_AGE", key: "nats.stream_max_age", default: Some("72h"), expected: DURATION,
        help: "How long those streams keep messages that have no age of their own. 0 keeps them for ever. Where it is set and \
               OUTBOX_NATS_STREAMS is not, it counts for the whole default list.";
        parse: duration,
    }
    STREAM_REPLICAS: usize {
        env: "OUTBOX_NATS_STREAM_REPLICAS", key: "nats.stream_replicas", default: Some("1"),
        expected: "a whole number from 1 to 5", help: "On how many servers of a cluster those streams are kept that have no replicas of their own.";
        parse: |text| whole(text, 1..=5),
    }
    DUPLICATE_WINDOW: Duration {
        env: "OUTBOX_NATS_DUPLICATE_WINDOW", key: "nats.duplicate_window", default: Some("2m"),
        expected: POSITIVE_DURATION,
        help: "How long those streams remember ids, and drop an event that comes again; those of the default list no longer than \
               they keep messages.";
        parse: positive_duration,
    }
    MONITORING_URL: Secret {
        env: "OUTBOX_NATS_MONITORING_URL", key: "nats.monitoring_url", default: None,
        expected: "a URL that begins with http://, such as http://127.0.0.1:8222",
        help: "The monitoring port of a NATS server. Only `doctor` asks it, whether the server syncs what it stores to its \
               disk.";
        parse: http_url, secret: true,
    }
}

/// Reads one token of a subject.
fn token(text: &str) -> Option<String> {
    let usable = |character: char| !character.is_whitespace() && !character.is_control() && !".*>".contains(character);
    present(text).filter(|text| text.chars().all(usable))
}

/// Reads a subject without wildcards.
fn subject(text: &str) -> Option<String> {
    text.split('.').all(|part| token(part).is_some()).then(|| text.to_owned())
}

/// Reads `none`, or `PLAYER=events.player;age=72h;replicas=3,GITHUB=events.github|events.hub`.
fn streams(text: &str) -> Option<Vec<StreamConfig>> {
    if text.eq_ignore_ascii_case("none") {
        return Some(Vec::new());
    }
    let stream = |item: &str| {
        let (name, rest) = item.trim().split_once('=')?;
        let (topics, options) = topics_and_options(rest);
        let mut stream = StreamConfig::new::<String>(name, []);
        for option in options {
            match option.split_once('=')? {
                ("age", age) if stream.max_age.is_none() => stream.max_age = Some(duration(age)?),
                ("replicas", servers) if stream.replicas.is_none() => stream.replicas = Some(whole(servers, 1..=5)?),
                _ => return None,
            }
        }
        stream.topics = topics.split('|').map(|topic| present(topic.trim())).collect::<Option<Vec<_>>>()?;
        let usable = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        usable.then_some(stream)
    };
    text.split(',').map(stream).collect()
}

/// Takes the options `;name=value` off the end of a stream's topics. A topic may hold a semicolon itself.
fn topics_and_options(text: &str) -> (&str, Vec<&str>) {
    let is_option = |part: &str| {
        let name = part.split_once('=').map(|(name, _)| name);
        name.is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase()))
    };
    let (mut topics, mut options) = (text, Vec::new());
    while let Some((before, part)) = topics.rsplit_once(';').filter(|(_, part)| is_option(part.trim())) {
        topics = before;
        options.push(part.trim());
    }
    (topics, options)
}

/// Returns the streams as they are to be made, and what of them somebody asked for.
///
/// What is set for all counts where a stream says nothing, and goes before what the default list says: nobody chose that.
fn wanted_streams(values: &Values) -> Vec<StreamConfig> {
    let by_default = !is_chosen(values, &STREAMS);
    let max_age = is_chosen(values, &STREAM_MAX_AGE).then(|| values.get(&STREAM_MAX_AGE));
    let replicas = is_chosen(values, &STREAM_REPLICAS).then(|| values.get(&STREAM_REPLICAS));
    let window = is_chosen(values, &DUPLICATE_WINDOW).then(|| values.get(&DUPLICATE_WINDOW));
    let resolve = |mut stream: StreamConfig| {
        stream.by_default = by_default;
        stream.max_age = if by_default { max_age.or(stream.max_age) } else { stream.max_age.or(max_age) };
        stream.replicas = stream.replicas.or(replicas);
        let kept = stream.max_age.filter(|age| by_default && !age.is_zero());
        stream.duplicate_window = window.map(|window| kept.map_or(window, |kept| window.min(kept)));
        stream
    };
    values.get(&STREAMS).into_iter().map(resolve).collect()
}

static CONTRADICTIONS: &[Contradiction] = &[
    Contradiction {
        settings: [CERT.about.env, KEY.about.env],
        expected: "both or none: a certificate and its key",
        consequence: Refused,
        found: |values, _| one_without_the_other(values, &CERT, &KEY),
    },
    Contradiction {
        settings: [JETSTREAM_DOMAIN.about.env, JETSTREAM_API_PREFIX.about.env],
        expected: "only one of them: a domain is a prefix of its own, $JS.<domain>.API",
        consequence: Refused,
        found: |values, _| is_chosen(values, &JETSTREAM_DOMAIN) && is_chosen(values, &JETSTREAM_API_PREFIX),
    },
    Contradiction {
        settings: [DUPLICATE_WINDOW.about.env, STREAM_MAX_AGE.about.env],
        expected: "the first to be at most the second: a server makes no stream that forgets messages before their ids",
        consequence: Refused,
        found: |values, _| {
            let max_age = values.get(&STREAM_MAX_AGE);
            let counts =
                !is_chosen(values, &STREAMS) || values.get(&STREAMS).iter().any(|stream| stream.max_age.is_none());
            counts && !max_age.is_zero() && values.get(&DUPLICATE_WINDOW) > max_age
        },
    },
    Contradiction {
        settings: [DUPLICATE_WINDOW.about.env, STREAMS.about.env],
        expected: "the first to be at most the age of each stream that has one of its own: a server makes no stream that forgets \
                   messages before their ids",
        consequence: Refused,
        found: |values, _| {
            let window = values.get(&DUPLICATE_WINDOW);
            let ages = values.get(&STREAMS).into_iter().filter_map(|stream| stream.max_age);
            is_chosen(values, &STREAMS) && ages.filter(|age| !age.is_zero()).any(|age| window > age)
        },
    },
    Contradiction {
        settings: [STREAMS.about.env, "OUTBOX_TOPIC_PREFIXES"],
        expected: "streams for topics that are allowed",
        consequence: Told,
        found: |values, relay| {
            let streams = values.get(&STREAMS);
            let mut topics = streams.iter().flat_map(|stream| &stream.topics);
            is_chosen(values, &STREAMS) && topics.any(|topic| !relay.validator.reaches(topic))
        },
    },
];

/// The adapter.
#[derive(Debug)]
pub(super) struct Nats;

#[async_trait]
impl BusAdapter for Nats {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn about(&self) -> &'static bus::About {
        &nats::ABOUT
    }

    fn settings(&self) -> &'static [&'static About] {
        SETTINGS
    }

    fn contradictions(&self) -> &'static [Contradiction] {
        CONTRADICTIONS
    }

    fn duplicate_window(&self, values: &Values) -> Duration {
        values.get(&DUPLICATE_WINDOW)
    }

    fn check(&self, values: &Values, demands: BusDemands) -> Result<(), CommandError> {
        config(values, demands)?.check().map_err(|error| invalid(URL.about.env, &error))
    }

    async fn connect(&self, values: &Values, demands: BusDemands) -> Result<Arc<dyn Bus>, CommandError> {
        Ok(Arc::new(connect(values, demands).await?))
    }

    /// Asks the monitoring port too.
    async fn diagnose(&self, values: &Values, bus: &dyn Bus, demands: &Demands) -> Vec<Finding> {
        let mut findings = bus.diagnose(demands).await;
        let Some(url) = values.optional(&MONITORING_URL) else {
            findings.push(nats::diagnose::monitoring_not_configured());
            return findings;
        };
        let varz = varz(url.expose()).await;
        findings.extend(varz.as_deref().ok().and_then(nats::diagnose::judge_leaf));
        findings.push(nats::diagnose::judge_monitoring(varz.as_deref().map_err(String::as_str)));
        findings
    }

    #[cfg(feature = "read-back")]
    fn set_place(&self, place: OwnPlace) -> Vec<(&'static str, String)> {
        vec![(STREAMS.about.env, format!("{}={}", place.stream, place.topic))]
    }

    #[cfg(feature = "read-back")]
    async fn read_back(
        &self,
        values: &Values,
        demands: BusDemands,
        place: OwnPlace,
    ) -> Result<Option<Box<dyn ReadBack>>, CommandError> {
        Ok(Some(Box::new(connect(values, demands).await?.reader(place.stream))))
    }
}

async fn connect(values: &Values, demands: BusDemands) -> Result<NatsBus, CommandError> {
    NatsBus::connect(config(values, demands)?).await.map_err(|error| invalid(URL.about.env, &error))
}

fn config(values: &Values, demands: BusDemands) -> Result<NatsConfig, CommandError> {
    let credentials_file = values.optional(&CREDENTIALS);
    Ok(NatsConfig {
        url: values.get(&URL).expose().to_owned(),
        url_file: values.file(&URL),
        credentials: credentials_file.as_ref().map(read_credentials).transpose()?,
        credentials_file,
        tls: tls_files(values, [&CA, &CERT, &KEY]),
        tls_first: values.get(&TLS_FIRST),
        jetstream_domain: values.optional(&JETSTREAM_DOMAIN),
        jetstream_api_prefix: values.optional(&JETSTREAM_API_PREFIX),
        inbox_prefix: values.optional(&INBOX_PREFIX),
        streams: wanted_streams(values),
        stream_max_age: values.get(&STREAM_MAX_AGE),
        stream_replicas: values.get(&STREAM_REPLICAS),
        duplicate_window: values.get(&DUPLICATE_WINDOW),
        require_durable: demands.require_durable,
        publish_timeout: demands.publish_timeout,
    })
}

fn read_credentials(file: &PathBuf) -> Result<String, CommandError> {
    std::fs::read_to_string(file).map_err(|error| {
        CommandError::config(format!("{}: cannot read {}: {error}", CREDENTIALS.about.env, file.display()))
    })
}

/// Returns what the server says at `/varz`, or why it does not. The URL, which may hold a secret, is not repeated.
async fn varz(url: &str) -> Result<String, String> {
    let uri: hyper::Uri = url.parse().map_err(|_| format!("{} is no URL", MONITORING_URL.about.env))?;
    let path = format!("{}/varz", uri.path().trim_end_matches('/'));
    http_get("the monitoring port", &uri, &path).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_no_wildcards_and_no_empty_tokens() {
        assert_eq!(subject("$JS.hub.API").as_deref(), Some("$JS.hub.API"));
        for wrong in ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "a b"] {
            assert!(subject(wrong).is_none(), "{wrong:?}");
        }
        assert!(token("hub").is_some() && token("hub.leaf").is_none());
    }

    #[test]
    fn a_stream_takes_several_topics() {
        let read = streams("PLAYER=events.player, GITHUB=events.github|events.hub").unwrap();
        assert_eq!(read[1].name, "GITHUB");
        assert_eq!(read[1].topics, ["events.github", "events.hub"]);
        assert_eq!(streams("none"), Some(Vec::new()));
        for wrong in ["", "none,PLAYER=events", "PLAYER", "PLAYER=", "=events", "A.B=events", "A=x,,B=y"] {
            assert!(streams(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_stream_may_have_an_age_and_replicas_of_its_own() {
        let read =
            streams("PLAYER=events.player|events.hub; age=72h ;replicas=3,LEADERBOARD=events.leaderboard;age=1h")
                .unwrap();
        assert_eq!(read[0].topics, ["events.player", "events.hub"]);
        assert_eq!((read[0].max_age, read[0].replicas), (Some(Duration::from_secs(72 * 3600)), Some(3)));
        assert_eq!((read[1].max_age, read[1].replicas), (Some(Duration::from_secs(3600)), None));
        assert_eq!(streams("A=x;age=0").unwrap()[0].max_age, Some(Duration::ZERO), "for ever");
        // A subject may hold a semicolon, and did before there were options.
        assert_eq!(streams("A=x;y|z;").unwrap()[0].topics, ["x;y", "z;"]);
        assert_eq!(streams("A=x;y;replicas=2").unwrap()[0].topics, ["x;y"]);
        for wrong in [
            "A=x;age=",
            "A=x;age=soon",
            "A=x;replicas=0",
            "A=x;replicas=6",
            "A=x;ages=1h",
            "A=;age=1h",
            "A=x;age=1h;age=2h",
        ] {
            assert!(streams(wrong).is_none(), "{wrong:?}");
        }
    }
}
