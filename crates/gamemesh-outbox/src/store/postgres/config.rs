use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::dsn::{self, DsnError};
use super::tls::{Tls, Verify};
use crate::store::{StoreError, StoreErrorKind};

/// Run-time settings of the server that other clients take in a connection string.
const SERVER_SETTINGS: [&str; 3] = ["search_path", "statement_timeout", "timezone"];
/// What libpq knows and means nothing here.
const IGNORED: [&str; 4] = ["client_encoding", "fallback_application_name", "gssencmode", "krbsrvname"];

/// What holds unless the connection string says otherwise: a server that went away without a word is noticed within
/// half a minute, and its statistics show who is connected.
const DEFAULTS: [(&str, &str); 6] = [
    ("application_name", "outbox-relay"),
    ("connect_timeout", "5"),
    ("keepalives_idle", "10"),
    ("keepalives_interval", "5"),
    ("keepalives_retries", "3"),
    ("tcp_user_timeout", "20"),
];

/// How to reach a PostgreSQL database. `Debug` does not show the password.
#[derive(Clone, Debug)]
pub struct PostgresConfig {
    pub(super) server: Config,
    pub(super) tls: Tls,
    /// Most connections: one for each worker and two for everything else.
    pub connections: u32,
    /// Whether recording an outcome waits for the disk. Off by default: an outcome that a crash of the database loses
    /// costs a duplicate with the same id, never an event. What producers write is not affected.
    pub synchronous_commit: bool,
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
        let (base, mut settings) = dsn::split(dsn)?;
        let mut take = |keyword: &str| {
            let at = settings.iter().rposition(|(name, _)| name.eq_ignore_ascii_case(keyword))?;
            Some(settings.remove(at).1.into_owned())
        };
        let root_cert = take("sslrootcert");
        let client = match (take("sslcert"), take("sslkey")) {
            (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
            (None, None) => None,
            (Some(_), None) => return Err(DsnError::Value { keyword: "sslkey", expected: "the key of sslcert" }),
            (None, Some(_)) => {
                return Err(DsnError::Value { keyword: "sslcert", expected: "the certificate of sslkey" });
            }
        };
        let ssl_mode_given = take("sslmode");
        let server_settings = SERVER_SETTINGS.map(|name| (name, take(name)));
        for ignored in IGNORED {
            take(ignored);
        }

        let defaults = DEFAULTS.map(|(name, value)| (name.into(), value.into()));
        let all = dsn::join(base, defaults.iter().chain(&settings));
        let mut server = Config::from_str(&all).map_err(|error| DsnError::driver(&error))?;
        if server.get_hosts().is_empty() && server.get_hostaddrs().is_empty() {
            server.host("localhost");
        }
        let ssl_mode_given = ssl_mode_given.as_deref().unwrap_or(default_ssl_mode(&server));
        let (ssl_mode, verify) = ssl_mode(ssl_mode_given, root_cert.is_some())?;
        let is_tcp = server.get_hosts().iter().any(|host| matches!(host, Host::Tcp(_)));
        // A socket on this machine is not encrypted, whatever sslmode says.
        server.ssl_mode(if is_tcp || server.get_hosts().is_empty() { ssl_mode } else { SslMode::Disable });
        for (name, value) in server_settings {
            let Some(value) = value else { continue };
            let value = value.replace('\\', r"\\").replace(' ', r"\ ");
            let options = format!("{} -c {name}={value}", server.get_options().unwrap_or_default());
            server.options(options.trim_start());
        }
        let root_cert = root_cert.filter(|path| path != "system").map(PathBuf::from);
        let tls = Tls { verify, root_cert, client };
        Ok(Self { server, tls, connections: 6, synchronous_commit: false, dsn_file: None })
    }
}

/// Chooses what holds without `sslmode`. Nobody listens between a program and its own machine.
fn default_ssl_mode(server: &Config) -> &'static str {
    let is_local =
        |name: &str| name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    // Where both are given, the address is what is connected to, and the name only what the certificate must say.
    let is_here = match server.get_hostaddrs() {
        [] => server.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) => is_local(name),
            #[cfg(unix)]
            Host::Unix(_) => true,
        }),
        addresses => addresses.iter().all(IpAddr::is_loopback),
    };
    if is_here { "prefer" } else { "verify-full" }
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
    use std::time::Duration;

    use super::*;

    const KEYWORDS: &str = r"host=db.local port=6432 user=app password='it\'s s3cret' dbname=shop sslmode=verify-full";
    const URL: &str = "postgres://app:it's%20s3cret@db.local:6432/shop?sslmode=verify-full";

    #[test]
    fn keywords_and_urls_say_the_same() {
        for dsn in [KEYWORDS, URL] {
            let config = PostgresConfig::from_dsn(dsn).unwrap();
            assert_eq!(config.server.get_hosts(), [Host::Tcp("db.local".into())]);
            assert_eq!(config.server.get_ports(), [6432]);
            assert_eq!(config.server.get_user(), Some("app"));
            assert_eq!(config.server.get_password(), Some(&b"it's s3cret"[..]));
            assert_eq!(config.server.get_dbname(), Some("shop"));
            assert_eq!(config.server.get_application_name(), Some("outbox-relay"));
            assert_eq!(config.server.get_keepalives_idle(), Duration::from_secs(10));
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
            assert_eq!((config.server.get_ssl_mode(), config.tls.verify), (mode, verify), "{dsn}");
        }
        let socket = PostgresConfig::from_dsn("host=/run/postgresql sslmode=require").unwrap();
        assert_eq!(socket.server.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn settings_of_other_clients_are_understood() {
        let dsn = "host=db user=app dbname=shop TimeZone=Europe/Berlin search_path=shop,public gssencmode=disable";
        let config = PostgresConfig::from_dsn(dsn).unwrap();
        assert_eq!(config.server.get_options(), Some("-c search_path=shop,public -c timezone=Europe/Berlin"));
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
