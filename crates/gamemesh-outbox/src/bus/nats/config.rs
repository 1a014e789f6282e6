use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};
use percent_encoding::percent_decode_str;

use super::api::API_PREFIX;
use super::login::Login;
use crate::bus::{BusError, BusErrorKind, TlsFiles};
use crate::renew::reread;

/// How to reach NATS, and which streams must be there.
#[derive(Clone)]
pub struct NatsConfig {
    /// One server or several, separated by commas. May hold a user and password (`nats://user:password@host:4222`) or a
    /// token (`nats://token@host:4222`); the first server that has them speaks for all.
    pub url: String,
    /// The file that the URL came from, if its login is to be read again for each new connection. A change of servers
    /// takes a new bus.
    pub url_file: Option<PathBuf>,
    /// The text of a `.creds` file (JWT and key), or the seed of an nkey alone (`SU...`), used instead of the login in the
    /// URL.
    pub credentials: Option<String>,
    /// The file that those came from, if they are to be read again for each new connection.
    pub credentials_file: Option<PathBuf>,
    /// Certificates. With any of them the connection must be encrypted, as with `tls://` in the URL.
    pub tls: TlsFiles,
    /// Whether the connection is encrypted before the server has said a word (`handshake_first` in its configuration).
    pub tls_first: bool,
    /// The JetStream domain that is meant, where it is not that of the server which is connected: a hub behind a leaf node.
    pub jetstream_domain: Option<String>,
    /// Where JetStream is asked, instead of `$JS.API` or what a domain makes of it.
    pub jetstream_api_prefix: Option<String>,
    /// What the subjects begin with on which answers are received, instead of `_INBOX`.
    pub inbox_prefix: Option<String>,
    /// Streams that are made at the start where they are missing. Empty: none is made.
    pub streams: Vec<StreamConfig>,
    /// How long a created stream keeps its messages.
    pub stream_max_age: Duration,
    /// On how many servers a created stream is stored.
    pub stream_replicas: usize,
    /// How long a created stream remembers message ids. An event sent again within it is stored once.
    pub duplicate_window: Duration,
    /// Whether nothing is published to a stream that may lose what it acknowledged, or that cannot be looked at.
    pub require_durable: bool,
    /// How long a batch may take, from the call to its last acknowledgement.
    pub publish_timeout: Duration,
}

/// A stream and the topics that live in it.
///
/// What is asked for here by name is told where a stream that exists has less: others may have made or changed it, and the
/// relay changes none.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StreamConfig {
    /// The stream's name: `PLAYER`.
    pub name: String,
    /// Its topics; each brings the subjects `<topic>` and `<topic>.>`.
    pub topics: Vec<String>,
    /// How long it keeps its messages; unset: [`NatsConfig::stream_max_age`].
    pub max_age: Option<Duration>,
    /// On how many servers it is stored; unset: [`NatsConfig::stream_replicas`].
    pub replicas: Option<usize>,
    /// How long it remembers message ids; unset: [`NatsConfig::duplicate_window`], and no longer than it keeps messages.
    pub duplicate_window: Option<Duration>,
    /// Whether nobody asked for the stream: it is made where that can be, and missed only once an event needs it.
    pub by_default: bool,
}

impl StreamConfig {
    /// Describes a stream that is made by the general settings.
    pub fn new<T: Into<String>>(name: impl Into<String>, topics: impl IntoIterator<Item = T>) -> Self {
        let topics = topics.into_iter().map(Into::into).collect();
        Self { name: name.into(), topics, ..Self::default() }
    }

    /// Lists the subjects of the stream.
    pub fn subjects(&self) -> Vec<String> {
        self.topics.iter().flat_map(|topic| [topic.clone(), format!("{topic}.>")]).collect()
    }
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".into(),
            url_file: None,
            credentials: None,
            credentials_file: None,
            tls: TlsFiles::default(),
            tls_first: false,
            jetstream_domain: None,
            jetstream_api_prefix: None,
            inbox_prefix: None,
            streams: vec![StreamConfig::new("PLAYER", ["events.player"])],
            stream_max_age: Duration::from_secs(72 * 60 * 60),
            stream_replicas: 1,
            duplicate_window: Duration::from_secs(2 * 60),
            require_durable: false,
            publish_timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for NatsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.servers().map(|servers| servers.addresses).unwrap_or_default();
        f.debug_struct("NatsConfig")
            .field("servers", &servers)
            .field("credentials", &self.credentials.as_ref().map(|_| "<hidden>"))
            .field("tls", &self.tls)
            .field("tls_first", &self.tls_first)
            .field("jetstream_domain", &self.jetstream_domain)
            .field("jetstream_api_prefix", &self.jetstream_api_prefix)
            .field("inbox_prefix", &self.inbox_prefix)
            .field("streams", &self.streams)
            .field("stream_max_age", &self.stream_max_age)
            .field("stream_replicas", &self.stream_replicas)
            .field("duplicate_window", &self.duplicate_window)
            .field("require_durable", &self.require_durable)
            .field("publish_timeout", &self.publish_timeout)
            .finish()
    }
}

/// The servers of a URL, with its secrets apart: the client prints addresses in its own logs.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) addresses: Vec<ServerAddr>,
    pub(super) login: Login,
}

impl Servers {
    /// Says whether any server is to be reached by TLS only. Then all are: the login must not reach another in the clear.
    pub(super) fn require_tls(&self) -> bool {
        self.addresses.iter().any(ServerAddr::tls_required)
    }
}

impl NatsConfig {
    /// Says what is wrong with it, as far as that can be known without a connection.
    pub fn check(&self) -> Result<(), BusError> {
        self.login()?;
        self.tls.check()?;
        self.servers().map(drop)
    }

    pub(super) fn servers(&self) -> Result<Servers, BusError> {
        self.servers_of(&self.url)
    }

    /// Returns the login as it was given.
    pub(super) fn login(&self) -> Result<Login, BusError> {
        match &self.credentials {
            Some(text) => Login::from_credentials(text).ok_or_else(invalid_credentials),
            None => Ok(self.servers()?.login),
        }
    }

    /// Returns the login as it is in its file now.
    pub(super) fn reread_login(&self) -> Result<Login, BusError> {
        let cannot = |error| BusError::new(BusErrorKind::Unavailable, format!("cannot read its file: {error}"));
        match &self.credentials {
            Some(given) => {
                let text = reread(self.credentials_file.as_ref(), given).map_err(cannot)?;
                Login::from_credentials(&text).ok_or_else(invalid_credentials)
            }
            None => Ok(self.servers_of(&reread(self.url_file.as_ref(), &self.url).map_err(cannot)?)?.login),
        }
    }

    fn servers_of(&self, url: &str) -> Result<Servers, BusError> {
        let mut servers = Servers { addresses: Vec::new(), login: Login::None };
        for text in url.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let mut url = text.parse::<ServerAddr>().map_err(|error| invalid(error.to_string()))?.into_inner();
            let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            if matches!(servers.login, Login::None) && !url.username().is_empty() {
                let user = decode(url.username());
                servers.login = match url.password() {
                    Some(password) => Login::Password { user, password: decode(password) },
                    None => Login::Token(user),
                };
            }
            // A slash in a password ends the host early, and the rest of the password would be shown with the address.
            if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
                let problem = "expected nothing behind the port; a password has %2F for a slash, %3F for ?, %23 for #";
                return Err(invalid(problem.to_owned()));
            }
            let cleared = url.set_username("").and_then(|()| url.set_password(None));
            cleared.map_err(|()| invalid("expected nats://host:port".into()))?;
            servers.addresses.push(ServerAddr::from_url(url).map_err(|error| invalid(error.to_string()))?);
        }
        if servers.addresses.is_empty() {
            return Err(invalid("expected at least one server, got none".into()));
        }
        Ok(servers)
    }

    /// Returns where JetStream is asked.
    pub(super) fn api_prefix(&self) -> Cow<'_, str> {
        match (&self.jetstream_api_prefix, &self.jetstream_domain) {
            (Some(prefix), _) => prefix.into(),
            (None, Some(domain)) => format!("$JS.{domain}.API").into(),
            (None, None) => API_PREFIX.into(),
        }
    }

    /// Says that nobody answers where JetStream is asked, and what may be the reason.
    pub(super) fn no_jetstream(&self) -> String {
        let prefix = self.api_prefix();
        match (&self.jetstream_api_prefix, &self.jetstream_domain) {
            (Some(_), _) => format!("no JetStream answers at {prefix} (OUTBOX_NATS_JETSTREAM_API_PREFIX)"),
            (None, Some(domain)) => format!(
                "no JetStream of the domain {domain} answers (OUTBOX_NATS_JETSTREAM_DOMAIN): it is down, unreachable from \
                 this server, or has another name"
            ),
            (None, None) => {
                "no JetStream answers on this connection: it is not enabled, not yet there, or lives in another \
                             domain, behind a leaf node (set OUTBOX_NATS_JETSTREAM_DOMAIN)"
                    .to_owned()
            }
        }
    }

    /// Describes `stream` as it is created.
    pub(super) fn stream(&self, stream: &StreamConfig) -> Config {
        let max_age = stream.max_age.unwrap_or(self.stream_max_age);
        // A server makes no stream that forgets messages before their ids.
        let general = if max_age.is_zero() { self.duplicate_window } else { self.duplicate_window.min(max_age) };
        let duplicate_window = stream.duplicate_window.unwrap_or(general);
        Config {
            name: stream.name.clone(),
            subjects: stream.subjects(),
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            max_age,
            num_replicas: stream.replicas.unwrap_or(self.stream_replicas),
            duplicate_window,
            // The server reads 0 as no limit at all, and then never discards a message before it is `max_age` old.
            ..Config::default()
        }
    }
}

fn invalid_credentials() -> BusError {
    let expected = "expected the text of a .creds file, or the seed of a user's nkey (SU...)";
    BusError::new(BusErrorKind::Unavailable, format!("invalid NATS credentials: {expected}"))
}

fn invalid(problem: String) -> BusError {
    BusError::new(BusErrorKind::Unavailable, format!("invalid NATS URL: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(url: &str) -> NatsConfig {
        NatsConfig { url: url.into(), ..NatsConfig::default() }
    }

    #[test]
    fn a_url_names_servers_and_a_login_and_they_are_kept_apart() {
        let servers = config("nats://ada:p%40ss@one:4222, tls://two").servers().unwrap();
        let addresses: Vec<_> = servers.addresses.iter().map(|address| address.as_url_str().to_owned()).collect();
        assert_eq!(addresses, ["nats://one:4222", "tls://two"]);
        let Login::Password { user, password } = servers.login else { panic!("expected a password") };
        assert_eq!((user.as_str(), password.as_str()), ("ada", "p@ss"));
        let token = config("nats://s3cret@one:4222").servers().unwrap().login;
        assert!(matches!(token, Login::Token(token) if token == "s3cret"));
    }

    #[test]
    fn debug_and_errors_hold_no_secret() {
        let mut config = config("nats://ada:hunter2@one:4222");
        config.credentials = Some("seed hunter2".into());
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(!format!("{:?}", config.servers().unwrap()).contains("hunter2"));
        for url in [
            "http://ada:hunter2@one",
            "nats://ada:hunter2@one:port",
            "nats://ada/hunter2@one",
            "nats://ada?hunter2@one",
            "nats://ada#hunter2@one",
            "",
        ] {
            config.url = url.into();
            config.credentials = None;
            let error = config.servers().unwrap_err();
            assert!(!error.chain().contains("hunter2"), "{}", error.chain());
            assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        }
    }
}
