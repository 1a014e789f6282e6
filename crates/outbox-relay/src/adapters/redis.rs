//! Redis Streams.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gamemesh_outbox::bus;
#[cfg(feature = "read-back")]
use gamemesh_outbox::bus::read_back::ReadBack;
use gamemesh_outbox::bus::redis::{self, RedisBus, RedisConfig};

#[cfg(feature = "read-back")]
use super::OwnPlace;
use super::{Bus, BusAdapter, BusDemands, EarlierMeaning, invalid, tls_files};
use crate::report::CommandError;
use crate::settings::contradictions::Consequence::{Refused, Told};
use crate::settings::contradictions::{Contradiction, is_chosen, one_without_the_other};
use crate::settings::load::Values;
use crate::settings::types::Secret;
use crate::settings::values::{path, positive_duration, secret, whole};
use crate::settings::{About, PEM_FILE, POSITIVE_DURATION, settings};

settings! {
    SETTINGS:
    URL: Secret {
        env: "REDIS_URL", key: "redis.url", default: Some("redis://127.0.0.1:6379"),
        expected: "a URL such as redis://127.0.0.1:6379", help: "The Redis server.";
        parse: secret, secret: true,
    }
    ADDR: String {
        env: "REDIS_ADDR", key: "redis.addr", default: Some("localhost:6379"),
        expected: "a host and a port, such as localhost:6379",
        help: "The Redis server as the earlier system names it. REDIS_URL goes before it and the two below.";
        parse: host_and_port, earlier: true,
    }
    PASSWORD: Secret {
        env: "REDIS_PASSWORD", key: "redis.password", default: None, expected: "a password",
        help: "The password of the server at REDIS_ADDR. Read at the start only, also from a file: one that changes belongs into \
               REDIS_URL_FILE.";
        parse: secret, secret: true, earlier: true,
    }
    DB: u32 {
        env: "REDIS_DB", key: "redis.db", default: Some("0"), expected: "a whole number from 0 up",
        help: "The database of the server at REDIS_ADDR.";
        parse: |text| whole(text, 0..=u32::MAX), earlier: true,
    }
    CA: PathBuf {
        env: "OUTBOX_REDIS_CA_FILE", key: "redis.ca_file", default: None, expected: PEM_FILE,
        help: "The authorities whose certificates are believed, instead of the operating system's. Takes rediss:// in REDIS_URL.";
        parse: path,
    }
    CERT: PathBuf {
        env: "OUTBOX_REDIS_CERT_FILE", key: "redis.cert_file", default: None, expected: PEM_FILE,
        help: "A client certificate for Redis.";
        parse: path,
    }
    KEY: PathBuf {
        env: "OUTBOX_REDIS_KEY_FILE", key: "redis.key_file", default: None, expected: PEM_FILE,
        help: "The key of that certificate.";
        parse: path, names_secret: true,
    }
    WAIT_REPLICAS: u32 {
        env: "OUTBOX_REDIS_WAIT_REPLICAS", key: "redis.wait_replicas", default: Some("0"),
        expected: "a whole number from 0 to 16",
        help: "How many Redis replicas must have an event before it counts as published. While fewer follow, nothing is added.";
        parse: |text| whole(text, 0..=16),
    }
    WAIT_TIMEOUT: Duration {
        env: "OUTBOX_REDIS_WAIT_TIMEOUT", key: "redis.wait_timeout", default: Some("1s"), expected: POSITIVE_DURATION,
        help: "How long to wait for those replicas.";
        parse: positive_duration,
    }
}

static CONTRADICTIONS: &[Contradiction] = &[
    Contradiction {
        settings: [CERT.about.env, KEY.about.env],
        expected: "both or none: a certificate and its key",
        consequence: Refused,
        found: |values, _| one_without_the_other(values, &CERT, &KEY),
    },
    Contradiction {
        settings: [WAIT_TIMEOUT.about.env, "OUTBOX_PUBLISH_TIMEOUT"],
        expected: "the first to be at most half of the second: replicas are waited for no longer than that",
        consequence: Told,
        found: |values, relay| values.get(&WAIT_REPLICAS) > 0 && values.get(&WAIT_TIMEOUT) > relay.publish_timeout / 2,
    },
    Contradiction {
        settings: [WAIT_TIMEOUT.about.env, WAIT_REPLICAS.about.env],
        expected: "a number of replicas to wait for: without one nothing is waited for",
        consequence: Told,
        found: |values, _| is_chosen(values, &WAIT_TIMEOUT) && values.get(&WAIT_REPLICAS) == 0,
    },
];

/// The adapter.
#[derive(Debug)]
pub(super) struct Redis;

#[async_trait]
impl BusAdapter for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn about(&self) -> &'static bus::About {
        &redis::ABOUT
    }

    fn settings(&self) -> &'static [&'static About] {
        SETTINGS
    }

    fn earlier_meaning(&self) -> Option<EarlierMeaning> {
        Some(EarlierMeaning {
            unambiguous: "redis-streams",
            instead: "nats",
            means: "Redis Pub/Sub, which stores nothing, so that whoever is not connected misses the event",
            is_ours: |values| is_chosen(values, &URL),
        })
    }

    fn contradictions(&self) -> &'static [Contradiction] {
        CONTRADICTIONS
    }

    fn check(&self, values: &Values, demands: BusDemands) -> Result<(), CommandError> {
        config(values, demands).check().map_err(|error| invalid(URL.about.env, &error))
    }

    async fn connect(&self, values: &Values, demands: BusDemands) -> Result<Arc<dyn Bus>, CommandError> {
        Ok(Arc::new(connect(values, demands).await?))
    }

    #[cfg(feature = "read-back")]
    async fn read_back(
        &self,
        values: &Values,
        demands: BusDemands,
        place: OwnPlace,
    ) -> Result<Option<Box<dyn ReadBack>>, CommandError> {
        Ok(Some(Box::new(connect(values, demands).await?.reader(place.topic))))
    }
}

/// Returns the server's URL, put together where it is set in the earlier system's three variables.
fn url(values: &Values) -> String {
    let in_three = is_chosen(values, &ADDR) || is_chosen(values, &PASSWORD) || is_chosen(values, &DB);
    if is_chosen(values, &URL) || !in_three {
        return values.get(&URL).expose().to_owned();
    }
    let password = values.optional(&PASSWORD).map(|password| percent_encoded(password.expose()));
    let login = password.map(|password| format!(":{password}@")).unwrap_or_default();
    format!("redis://{login}{}/{}", values.get(&ADDR), values.get(&DB))
}

/// Writes a password as a URL can hold it.
fn percent_encoded(password: &str) -> String {
    percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn host_and_port(text: &str) -> Option<String> {
    let authority: hyper::http::uri::Authority = text.parse().ok()?;
    let is_place = authority.port_u16().is_some() && !authority.host().is_empty() && !text.contains('@');
    is_place.then(|| text.to_owned())
}

async fn connect(values: &Values, demands: BusDemands) -> Result<RedisBus, CommandError> {
    RedisBus::connect(config(values, demands)).await.map_err(|error| invalid(URL.about.env, &error))
}

fn config(values: &Values, demands: BusDemands) -> RedisConfig {
    RedisConfig {
        url: url(values),
        url_file: values.file(&URL),
        tls: tls_files(values, [&CA, &CERT, &KEY]),
        publish_timeout: demands.publish_timeout,
        wait_replicas: values.get(&WAIT_REPLICAS),
        wait_timeout: values.get(&WAIT_TIMEOUT),
        require_durable: demands.require_durable,
        ..RedisConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_the_three_variables_counts_by_itself_and_a_url_goes_before_them() {
        let url_of = |set: &[(&str, &str)]| {
            let set = set.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            url(&Values::load(SETTINGS, &[], set, None).unwrap())
        };
        assert_eq!(url_of(&[]), "redis://127.0.0.1:6379");
        assert_eq!(url_of(&[("REDIS_DB", "5")]), "redis://localhost:6379/5");
        assert_eq!(url_of(&[("REDIS_PASSWORD", "a b@c")]), "redis://:a%20b%40c@localhost:6379/0");
        assert_eq!(url_of(&[("REDIS_ADDR", "r:1"), ("REDIS_DB", "2")]), "redis://r:1/2");
        assert_eq!(url_of(&[("REDIS_ADDR", "r:1"), ("REDIS_URL", "redis://s:2")]), "redis://s:2");
    }
}
