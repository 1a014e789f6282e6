use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use redis::{Client, ClientTlsConfig, ConnectionAddr, TlsCertificates};

use crate::bus::{BusError, BusErrorKind, TlsFiles};
use crate::renew::reread;

/// How to reach Redis, and how much to ask of it.
#[derive(Clone)]
pub struct RedisConfig {
    /// `redis://user:password@host:6379/0`, or `rediss://` for TLS.
    pub url: String,
    /// The file that the URL came from, if it is to be read again for each new connection.
    pub url_file: Option<PathBuf>,
    /// Certificates, for `rediss://` only.
    pub tls: TlsFiles,
    /// How long a batch may take, from the call to its last answer.
    pub publish_timeout: Duration,
    /// How many replicas must have a batch before it counts as published. With 0 the primary's word is enough.
    pub wait_replicas: u32,
    /// How long to wait for the replicas; at most half of `publish_timeout` is used.
    pub wait_timeout: Duration,
    /// Largest envelope, in bytes. The server's own `proto-max-bulk-len` counts where it is lower and may be read.
    pub message_bytes_max: u64,
    /// Publishes nothing to what may lose it: a server that deletes streams when it is full or keeps them in memory only, a
    /// stream with a time to live, and what cannot be looked at.
    pub require_durable: bool,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".into(),
            url_file: None,
            tls: TlsFiles::default(),
            publish_timeout: Duration::from_secs(5),
            wait_replicas: 0,
            wait_timeout: Duration::from_secs(1),
            message_bytes_max: 512 * 1024 * 1024,
            require_durable: false,
        }
    }
}

impl RedisConfig {
    /// Says what is wrong with it, as far as that can be known without a connection.
    pub fn check(&self) -> Result<(), BusError> {
        self.client().map(drop)
    }

    /// Prepares a client by what the URL and the certificates are at this moment.
    pub(super) fn client(&self) -> Result<Client, BusError> {
        let unusable = |problem| BusError::new(BusErrorKind::Unavailable, problem);
        let url = reread(self.url_file.as_ref(), &self.url);
        let url = url.map_err(|error| unusable(format!("cannot read the file of the Redis URL: {error}")))?;
        let invalid = |error| {
            let expected = "expected redis://host:port or rediss://host:port";
            unusable(format!("invalid Redis URL: {expected}, got {error}"))
        };
        let client = Client::open(url.as_str()).map_err(invalid)?;
        if !self.tls.wanted() {
            return Ok(client);
        }
        self.tls.check()?;
        if !matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. }) {
            return Err(unusable("certificates are given: expected a Redis URL with rediss://".to_owned()));
        }
        let read = |file: &PathBuf| {
            std::fs::read(file).map_err(|error| unusable(format!("cannot read {}: {error}", file.display())))
        };
        let client_tls = match (&self.tls.cert, &self.tls.key) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
            _ => None,
        };
        let root_cert = self.tls.ca.as_ref().map(read).transpose()?;
        let certificates = TlsCertificates { client_tls, root_cert };
        Client::build_with_tls(url.as_str(), certificates)
            .map_err(|error| unusable(format!("cannot use the certificates for Redis: {error}")))
    }

    /// Returns the time to wait for replicas, in milliseconds. Never 0, which would mean for ever.
    pub(super) fn wait_milliseconds(&self) -> u64 {
        let wait = self.wait_timeout.min(self.publish_timeout / 2);
        u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = Client::open(self.url.as_str());
        let server = server.map(|client| client.get_connection_info().addr().to_string());
        f.debug_struct("RedisConfig")
            .field("server", &server.unwrap_or_default())
            .field("tls", &self.tls)
            .field("publish_timeout", &self.publish_timeout)
            .field("wait_replicas", &self.wait_replicas)
            .field("wait_timeout", &self.wait_timeout)
            .field("message_bytes_max", &self.message_bytes_max)
            .field("require_durable", &self.require_durable)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_the_server_and_no_secret() {
        let config = RedisConfig { url: "redis://ada:hunter2@one:6380/1".into(), ..RedisConfig::default() };
        let text = format!("{config:?}");
        assert!(text.contains("one:6380") && !text.contains("hunter2"), "{text}");
        let config = RedisConfig { url: "http://ada:hunter2@one".into(), ..config };
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn waiting_for_replicas_is_bounded_and_never_for_ever() {
        let config = RedisConfig { wait_timeout: Duration::ZERO, ..RedisConfig::default() };
        assert_eq!(config.wait_milliseconds(), 1);
        let config = RedisConfig { wait_timeout: Duration::from_secs(60), ..config };
        assert_eq!(config.wait_milliseconds(), 2500);
    }
}
