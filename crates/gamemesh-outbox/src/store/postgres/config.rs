use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};

use super::address::{self, ServerAddress};
use super::asked::{AskedSetting, TargetSession, in_options};
use super::dsn::{self, DsnError};
use super::tls::{Tls, TlsVersions, Verify};
use super::words;
use crate::store::{OnPublished, StoreError, StoreErrorKind};

/// Run-time settings of the server that other clients take in a connection string.
const SERVER_SETTINGS: [&str; 3] = ["search_path", "statement_timeout", "timezone"];

/// What holds unless the connection string says otherwise: a server that went away without a word is noticed within
/// half a minute, and its statistics show who is connected.
const DEFAULTS: [(&str, &str); 4] = [
    ("application_name", "outbox-relay"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_retries", "3"),
];
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);

/// How to reach a PostgreSQL database. `Debug` does not show the password.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    /// What every server is told, and no server's name.
    pub(super) session: Config,
    pub(super) servers: Vec<ServerAddress>,
    /// Whether the servers are tried in an order that chance chooses.
    pub(super) shuffled: bool,
    pub(super) target: TargetSession,
    /// How long one address may take to become a session, if the string says so.
    pub(super) connect_timeout: Option<Duration>,
    /// The settings that the session has to have.
    pub(super) asked: Vec<AskedSetting>,
    pub(super) tls: Tls,
    /// Most connections: one for each worker, two for topics in trouble, and two for everything else.
    pub connections: u32,
    /// Whether recording an outcome waits for the disk. Off by default: an outcome that a crash of the database loses
    /// costs a duplicate with the same id, never an event. What producers write is not affected.
    pub synchronous_commit: bool,
    /// What becomes of acknowledged events: a health check looks whether that could be written.
    pub on_published: OnPublished,
    /// How long one statement of a claim may run. Unless it is given, as long as the claim may live, and 5 seconds at least.
    pub statement_time: Option<Duration>,
    /// The file that the connection string came from, if it is to be read again for each new connection: a password that
    /// was changed there works without a restart.
    pub dsn_file: Option<PathBuf>,
}

impl PostgresConfig {
    /// Reads a connection string: libpq keywords as in `POSTGRES_DSN`, or a URL as in `DATABASE_URL`.
    ///
    /// `sslmode` means what it means to libpq: `prefer` and `require` encrypt without looking at the certificate,
    /// `require` with `sslrootcert` is `verify-ca`, `verify-full` checks the host's name too. Its default is not libpq's,
    /// which would fall back to plain text without a word: it is `verify-full`, and `prefer` only where every host is
    /// this machine.
    pub fn from_dsn(dsn: &str) -> Result<Self, StoreError> {
        Self::parse(dsn).map_err(|error| {
            StoreError::new(StoreErrorKind::Unusable, "invalid PostgreSQL connection string").with_source(error)
        })
    }

    fn parse(dsn: &str) -> Result<Self, DsnError> {
        let mut settings = words::obeyed(dsn::read(dsn)?)?;
        let mut take = |keyword: &str| {
            let at = settings.iter().position(|(name, _)| *name == keyword)?;
            Some(settings.remove(at).1)
        };
        let servers = address::servers(take("host"), take("hostaddr"), take("port"))?;
        let shuffled = match take("load_balance_hosts").as_deref() {
            None | Some("disable") => false,
            Some("random") => true,
            Some(_) => {
                return Err(DsnError::Value { keyword: "load_balance_hosts", expected: "disable or random" });
            }
        };
        let target = take("target_session_attrs").map_or(Ok(TargetSession::Any), |text| TargetSession::parse(&text))?;
        let connect_timeout = number("connect_timeout", take("connect_timeout"))?.map(Duration::from_secs);
        // libpq counts it in milliseconds, the driver in seconds.
        let tcp_user_timeout = number("tcp_user_timeout", take("tcp_user_timeout"))?.map(Duration::from_millis);
        let (tls, ssl_mode) = tls(&mut take, &servers)?;
        let options = take("options").unwrap_or_default();
        let server_settings: Vec<(&str, String)> =
            SERVER_SETTINGS.iter().filter_map(|name| Some((*name, take(name)?))).collect();
        if let Some(count) = take("keepalives_count") {
            // libpq's name of what the driver calls retries.
            settings.push(("keepalives_retries", count));
        }

        let given = settings.iter().map(|(name, value)| (*name, value.as_str()));
        let mut session = Config::from_str(&dsn::write(DEFAULTS.into_iter().chain(given)))
            .map_err(|error| DsnError::driver(&error))?;
        session.tcp_user_timeout(tcp_user_timeout.unwrap_or(TCP_USER_TIMEOUT));
        let is_tcp = servers.iter().any(|server| matches!(server.name, Some(Host::Tcp(_)) | None));
        // A socket on this machine is not encrypted, whatever sslmode says.
        session.ssl_mode(if is_tcp { ssl_mode } else { SslMode::Disable });
        if session.get_ssl_negotiation() == SslNegotiation::Direct && ssl_mode != SslMode::Require && is_tcp {
            return Err(DsnError::Value {
                keyword: "sslmode",
                expected: "require or more beside sslnegotiation=direct",
            });
        }
        let mut all_options = options.clone();
        for (name, value) in &server_settings {
            let value = value.replace('\\', r"\\").replace(' ', r"\ ");
            all_options.push_str(&format!(" -c {name}={value}"));
        }
        if !all_options.is_empty() {
            session.options(all_options.trim_start());
        }
        let mut asked = in_options(&options);
        for (name, value) in server_settings {
            asked.retain(|earlier| earlier.name != name);
            asked.push(AskedSetting { name: name.to_owned(), value });
        }
        Ok(Self {
            session,
            servers,
            shuffled,
            target,
            connect_timeout,
            asked,
            tls,
            connections: 8,
            synchronous_commit: false,
            on_published: OnPublished::Mark,
            statement_time: None,
            dsn_file: None,
        })
    }

    /// Names the servers, for a person.
    pub(super) fn shown(&self) -> String {
        self.servers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Reads a number; 0 and less is libpq's way to say that there is none.
fn number(keyword: &'static str, text: Option<String>) -> Result<Option<u64>, DsnError> {
    let Some(text) = text else { return Ok(None) };
    let number: i64 = text.trim().parse().map_err(|_| DsnError::Value { keyword, expected: "a whole number" })?;
    Ok(u64::try_from(number).ok().filter(|number| *number > 0))
}

/// Takes what is about encryption.
fn tls(take: &mut impl FnMut(&str) -> Option<String>, servers: &[ServerAddress]) -> Result<(Tls, SslMode), DsnError> {
    let root_cert = take("sslrootcert");
    let client = match (take("sslcert"), take("sslkey")) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        (Some(_), None) => return Err(DsnError::Value { keyword: "sslkey", expected: "the key of sslcert" }),
        (None, Some(_)) => {
            return Err(DsnError::Value { keyword: "sslcert", expected: "the certificate of sslkey" });
        }
    };
    let versions = TlsVersions::of(take("ssl_min_protocol_version"), take("ssl_max_protocol_version"))?;
    let given = match (take("sslmode"), take("ssl").as_deref()) {
        (given, None) => given,
        (Some(given), Some("true" | "1")) if given != "disable" => Some(given),
        // libpq reads it so, for the sake of JDBC's URLs.
        (None, Some("true" | "1")) => Some("require".to_owned()),
        (_, Some(_)) => return Err(DsnError::Value { keyword: "ssl", expected: "true, or better sslmode" }),
    };
    let system = root_cert.as_deref() == Some("system");
    if system && given.as_deref().is_some_and(|mode| mode != "verify-full") {
        // Anybody has a certificate of some public authority.
        return Err(DsnError::Value { keyword: "sslmode", expected: "verify-full beside sslrootcert=system" });
    }
    let default = if system { "verify-full" } else { default_ssl_mode(servers) };
    let (ssl_mode, verify) = ssl_mode(given.as_deref().unwrap_or(default), root_cert.is_some())?;
    let root_cert = root_cert.filter(|_| !system).map(PathBuf::from);
    Ok((Tls { verify, root_cert, client, versions }, ssl_mode))
}

/// Chooses what holds without `sslmode`. Nobody listens between a program and its own machine.
fn default_ssl_mode(servers: &[ServerAddress]) -> &'static str {
    let is_local =
        |name: &str| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // Where both are given, the address is what is connected to, and the name only what the certificate must say.
    let is_here = |server: &ServerAddress| match (&server.ip, &server.name) {
        (Some(ip), _) => ip.is_loopback(),
        (None, Some(Host::Tcp(name))) => is_local(name),
        #[cfg(unix)]
        (None, Some(Host::Unix(_))) => true,
        (None, None) => false,
    };
    if servers.iter().all(is_here) { "prefer" } else { "verify-full" }
}

fn ssl_mode(sslmode: &str, has_root_cert: bool) -> Result<(SslMode, Verify), DsnError> {
    Ok(match sslmode {
        "disable" => (SslMode::Disable, Verify::Nothing),
        "allow" | "prefer" => (SslMode::Prefer, Verify::Nothing),
        "require" if !has_root_cert => (SslMode::Require, Verify::Nothing),
        "require" | "verify-ca" => (SslMode::Require, Verify::Authority),
        "verify-full" => (SslMode::Require, Verify::Host),
        _ => {
            let expected = "disable, allow, prefer, require, verify-ca or verify-full";
            return Err(DsnError::Value { keyword: "sslmode", expected });
        }
    })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    const KEYWORDS: &str = r"host=db.local port=6432 user=app password='it\'s s3cret' dbname=shop sslmode=verify-full";
    const URL: &str = "postgres://app:it's%20s3cret@db.local:6432/shop?sslmode=verify-full";

    #[test]
    fn keywords_and_urls_say_the_same() {
        for dsn in [KEYWORDS, URL] {
            let config = PostgresConfig::from_dsn(dsn).unwrap();
            assert_eq!(config.shown(), "db.local:6432");
            assert_eq!(config.session.get_user(), Some("app"));
            assert_eq!(config.session.get_password(), Some(&b"it's s3cret"[..]));
            assert_eq!(config.session.get_dbname(), Some("shop"));
            assert_eq!(config.session.get_application_name(), Some("outbox-relay"));
            assert_eq!(config.session.get_keepalives_idle(), Duration::from_secs(10));
            assert_eq!(config.tls.verify, Verify::Host);
        }
    }

    #[test]
    fn sslmode_means_what_it_means_to_libpq() {
        let table = [
            ("", SslMode::Prefer, Verify::Nothing),
            ("host=localhost,127.0.0.1,::1", SslMode::Prefer, Verify::Nothing),
            ("host=db.example hostaddr=127.0.0.1", SslMode::Prefer, Verify::Nothing),
            ("host=db.example", SslMode::Require, Verify::Host),
            ("host=10.0.0.1", SslMode::Require, Verify::Host),
            ("hostaddr=10.0.0.1", SslMode::Require, Verify::Host),
            ("host=localhost hostaddr=10.0.0.1", SslMode::Require, Verify::Host),
            ("host=localhost,db.example", SslMode::Require, Verify::Host),
            ("host=/run/postgresql,db.example", SslMode::Require, Verify::Host),
            ("host=db.example sslmode=prefer", SslMode::Prefer, Verify::Nothing),
            ("sslmode=disable", SslMode::Disable, Verify::Nothing),
            ("sslmode=prefer", SslMode::Prefer, Verify::Nothing),
            ("sslmode=require", SslMode::Require, Verify::Nothing),
            ("sslmode=require sslrootcert=/ca.pem", SslMode::Require, Verify::Authority),
            ("sslmode=verify-ca sslrootcert=/ca.pem", SslMode::Require, Verify::Authority),
            ("sslmode=verify-full sslrootcert=system", SslMode::Require, Verify::Host),
        ];
        for (dsn, mode, verify) in table {
            let config = PostgresConfig::from_dsn(dsn).unwrap();
            assert_eq!((config.session.get_ssl_mode(), config.tls.verify), (mode, verify), "{dsn}");
        }
        let socket = PostgresConfig::from_dsn("host=/run/postgresql sslmode=require").unwrap();
        assert_eq!(socket.session.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn settings_of_other_clients_are_understood() {
        let dsn = "host=db user=app dbname=shop TimeZone=Europe/Berlin search_path=shop,public gssencmode=disable";
        let config = PostgresConfig::from_dsn(dsn).unwrap();
        assert_eq!(config.session.get_options(), Some("-c search_path=shop,public -c timezone=Europe/Berlin"));
        let config = PostgresConfig::from_dsn("postgres://db/?tcp_user_timeout=1500&keepalives_count=7").unwrap();
        assert_eq!(config.session.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
        assert_eq!(config.session.get_keepalives_retries(), Some(7));
    }

    #[test]
    fn what_would_weaken_a_promise_is_refused() {
        for (dsn, problem) in [
            ("host=db sslrootcert=system sslmode=require", "sslmode: expected verify-full"),
            ("host=db sslmode=prefer sslnegotiation=direct", "sslmode: expected require or more"),
            ("host=db sslmode=disable ssl=true", "ssl: expected true, or better sslmode"),
            ("host=db ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "ssl_max_protocol_version"),
            ("host=db sslmode=no-verify", "sslmode: expected disable, allow"),
            ("host=db target_session_attrs=master", "target_session_attrs: expected any, read-write"),
            ("host=a,b port=1,2,3", "port: expected one, or as many as hosts"),
        ] {
            let error = PostgresConfig::from_dsn(dsn).unwrap_err();
            let shown = error.source().unwrap().to_string();
            assert!(shown.contains(problem), "{dsn}: {shown}");
        }
        let config = PostgresConfig::from_dsn("postgres://db.example/shop?ssl=true").unwrap();
        assert_eq!(config.session.get_ssl_mode(), SslMode::Require);
    }

    #[test]
    fn no_secret_is_shown() {
        let config = PostgresConfig::from_dsn(KEYWORDS).unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));

        let wrong = [
            "password=first s3cret",
            "password=first s3cret=second",
            "password='s3cret",
            "host=db sslmode=s3cret",
            "host=db port=s3cret",
            "postgres://app:s3cret@db:s3cret/shop",
            "postgres://app:s3cret@db/shop?s3cret=1",
            "postgres://app:%ff@db/shop?sslmode=%ff",
            "host=db password=s3cret sslcert=/cert.pem",
            "host=db password=s3cret sslkey=/key.pem",
            "mysql://app:s3cret@db/shop",
            "s3cret",
        ];
        for dsn in wrong {
            let error = PostgresConfig::from_dsn(dsn).unwrap_err();
            assert_eq!(error.kind(), StoreErrorKind::Unusable);
            let shown = format!("{error:?} {error} {}", error.source().unwrap());
            assert!(!shown.contains("s3cret"), "{dsn}: {shown}");
        }
    }
}
