//! Connection strings: libpq's keywords (`host=db user=app`) and URLs (`postgres://app@db/shop`).

use std::borrow::Cow;
use std::error::Error;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What is wrong with a connection string. It never quotes the string: any part of it may belong to a password.
#[derive(Debug, thiserror::Error, Eq, PartialEq)]
pub(super) enum DsnError {
    #[error("expected libpq keywords (host=... dbname=...) or a postgres:// URL")]
    Syntax,
    #[error("{keyword}: expected {expected}")]
    Value { keyword: &'static str, expected: &'static str },
    #[error("unknown keyword")]
    Unknown,
}

impl DsnError {
    /// Repeats of the driver's error only what cannot come from the string itself.
    pub(super) fn driver(error: &tokio_postgres::Error) -> Self {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        let known =
            ["port", "hostaddr", "connect_timeout", "tcp_user_timeout", "target_session_attrs", "channel_binding"];
        match known.into_iter().find(|option| cause == format!("invalid value for option `{option}`")) {
            Some(keyword) => Self::Value { keyword, expected: "a value that PostgreSQL clients know" },
            None if cause.starts_with("unknown option") => Self::Unknown,
            None => Self::Syntax,
        }
    }
}

/// One setting of a connection string.
pub(super) type Setting<'a> = (Cow<'a, str>, Cow<'a, str>);

/// Splits a connection string into the part before the settings (of a URL: up to the `?`) and the settings.
pub(super) fn split(dsn: &str) -> Result<(&str, Vec<Setting<'_>>), DsnError> {
    if dsn.starts_with("postgres://") || dsn.starts_with("postgresql://") {
        // A password may hold a question mark.
        let credentials = dsn.find('@').unwrap_or_default();
        let Some(mark) = dsn[credentials..].find('?') else { return Ok((dsn, Vec::new())) };
        let (base, query) = dsn.split_at(credentials + mark);
        let settings = query[1..].split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').ok_or(DsnError::Syntax)?;
            Ok((decode(name)?, decode(value)?))
        });
        return Ok((base, settings.collect::<Result<_, _>>()?));
    }
    Ok(("", keywords(dsn)?))
}

/// Puts together what [`split`] took apart.
pub(super) fn join<'a>(base: &str, settings: impl Iterator<Item = &'a Setting<'a>>) -> String {
    if base.is_empty() {
        let quoted = |value: &str| value.replace('\\', r"\\").replace('\'', r"\'");
        return settings.map(|(name, value)| format!("{name}='{}' ", quoted(value))).collect();
    }
    let encoded = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
    let settings: Vec<_> = settings.map(|(name, value)| format!("{name}={}", encoded(value))).collect();
    format!("{base}?{}", settings.join("&"))
}

fn decode(text: &str) -> Result<Cow<'_, str>, DsnError> {
    percent_decode_str(text).decode_utf8().map_err(|_| DsnError::Syntax)
}

/// Reads `name = value` pairs; a value with spaces stands in single quotes, and a backslash takes the next character as
/// it is.
fn keywords(dsn: &str) -> Result<Vec<Setting<'_>>, DsnError> {
    let mut settings = Vec::new();
    let mut rest = dsn.trim_start();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(DsnError::Syntax)?;
        let name = name.trim_end();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(DsnError::Syntax);
        }
        let (value, after) = value(after.trim_start())?;
        settings.push((name.into(), value.into()));
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
