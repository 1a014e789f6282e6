//! Connection strings: libpq's keywords (`host=db user=app`) and URLs (`postgres://app@db/shop`). Both are read into the same
//! settings.

use std::borrow::Cow;
use std::error::Error;

use percent_encoding::percent_decode_str;

/// What is wrong with a connection string. It quotes nothing of the string but the name of a keyword that cannot belong to a
/// password.
#[derive(Debug, thiserror::Error, Eq, PartialEq)]
pub(super) enum DsnError {
    #[error("expected libpq keywords (host=... dbname=...) or a postgres:// URL")]
    Syntax,
    #[error("{keyword}: expected {expected}")]
    Value { keyword: &'static str, expected: &'static str },
    /// Keywords that are not obeyed here, each with what to do instead.
    #[error("{0}")]
    Keywords(String),
}

impl DsnError {
    /// Repeats of the driver's error only what cannot come from the string itself.
    pub(super) fn driver(error: &tokio_postgres::Error) -> Self {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let known = [
            "keepalives",
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_retries",
            "tcp_user_timeout",
            "channel_binding",
            "sslnegotiation",
        ];
        match known.into_iter().find(|option| cause == format!("invalid value for option `{option}`")) {
            Some(keyword) => Self::Value { keyword, expected: "a value that PostgreSQL clients know" },
            None => Self::Syntax,
        }
    }
}

/// One setting of a connection string.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    /// Whether its name may be repeated to a person: a password with a space, `&` or `@` in it that is not written as it
    /// should be continues in what looks like the next name.
    pub(super) nameable: bool,
}

impl Setting {
    fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), nameable: true }
    }
}

/// Reads a connection string.
pub(super) fn read(dsn: &str) -> Result<Vec<Setting>, DsnError> {
    let url = ["postgres://", "postgresql://"].into_iter().find_map(|scheme| dsn.strip_prefix(scheme));
    url.map_or_else(|| keywords(dsn), self::url)
}

/// Writes settings as the driver reads them.
pub(super) fn write<'a>(settings: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let quoted = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
    settings.map(|(name, value)| format!("{name}='{}' ", quoted(value))).collect()
}

/// Reads a URL from behind its scheme: `user:password@host:port,host:port/dbname?name=value&name=value`.
fn url(text: &str) -> Result<Vec<Setting>, DsnError> {
    let mut settings = Vec::new();
    // Without a server (`postgres:///shop?user=ada@home`) there is nothing that an @ could end.
    let (credentials, rest) = match text.split_once('@') {
        Some(both) if !text.starts_with('/') => both,
        _ => ("", text),
    };
    if !credentials.is_empty() {
        let (user, password) = match credentials.split_once(':') {
            Some((user, password)) => (user, Some(password)),
            None => (credentials, None),
        };
        settings.push(Setting::new("user", decode(user)?));
        if let Some(password) = password {
            settings.push(Setting::new("password", decode(password)?));
        }
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (servers, database) = place.split_once('/').unwrap_or((place, ""));
    if !servers.is_empty() {
        let (hosts, ports) = self::servers(servers)?;
        settings.extend([Setting::new("host", hosts), Setting::new("port", ports)]);
    }
    if !database.is_empty() {
        settings.push(Setting::new("dbname", decode(database)?));
    }
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or(DsnError::Syntax)?;
        let setting = Setting::new(decode(name)?, decode(value)?);
        // An @ that stands for itself ended the password too early.
        settings.push(Setting { nameable: !query.contains('@'), ..setting });
    }
    Ok(settings)
}

/// Reads `host:port,[::1]:port` into a list of hosts and one of ports; a port that is not given is empty.
fn servers(text: &str) -> Result<(String, String), DsnError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for server in text.split(',') {
        let (host, port) = match server.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or(DsnError::Syntax)?;
                (host, if rest.is_empty() { "" } else { rest.strip_prefix(':').ok_or(DsnError::Syntax)? })
            }
            None => server.split_once(':').unwrap_or((server, "")),
        };
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    Ok((hosts.join(","), ports.join(",")))
}

fn decode(text: &str) -> Result<Cow<'_, str>, DsnError> {
    percent_decode_str(text).decode_utf8().map_err(|_| DsnError::Syntax)
}

/// Reads `name = value` pairs; a value with spaces stands in single quotes, and a backslash takes the next character as
/// it is.
fn keywords(dsn: &str) -> Result<Vec<Setting>, DsnError> {
    let mut settings = Vec::new();
    let mut nameable = true;
    let mut rest = dsn.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(DsnError::Syntax)?;
        let name = name.trim_end();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(DsnError::Syntax);
        }
        let after = after.trim_start();
        let quoted = after.starts_with('\'');
        let (value, after) = value(after)?;
        settings.push(Setting { nameable, ..Setting::new(name, value) });
        nameable = quoted || !name.contains("password");
        rest = after.trim_start();
    }
    Ok(settings)
}

fn value(text: &str) -> Result<(String, &str), DsnError> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut characters = text.char_indices().skip(usize::from(quoted));
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.push(characters.next().ok_or(DsnError::Syntax)?.1),
            '\'' if quoted => return Ok((value, &text[at + 1..])),
            c if !quoted && c.is_whitespace() => return Ok((value, &text[at..])),
            c => value.push(c),
        }
    }
    if quoted { Err(DsnError::Syntax) } else { Ok((value, "")) }
}
