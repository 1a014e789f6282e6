//! From text to a value; `None` where the text is not what the setting expects.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use jiff::SignedDuration;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::types::{LogLevel, Secret};

/// Reads a flag in every form that Go's `strconv.ParseBool` takes, and in any case of its letters.
pub(crate) fn flag(text: &str) -> Option<bool> {
    choice(text, &[("true", true), ("false", false), ("1", true), ("0", false), ("t", true), ("f", false)])
}

pub(crate) fn choice<T: Copy>(text: &str, names: &[(&str, T)]) -> Option<T> {
    names.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

pub(crate) fn whole<T: FromStr + PartialOrd>(text: &str, range: RangeInclusive<T>) -> Option<T> {
    text.parse().ok().filter(|value| range.contains(value))
}

pub(crate) fn ratio(text: &str) -> Option<f64> {
    text.parse().ok().filter(|value| (0.0..=1.0).contains(value))
}

/// Reads a duration as Go writes them. A plain 0 needs no unit.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let days_or_iso = text.starts_with('P') || text.starts_with('-');
    // Go needs no digit before the point.
    let whole = if text.starts_with('.') { format!("0{text}") } else { text.to_owned() };
    let parsed: SignedDuration = whole.parse().ok().filter(|_| !days_or_iso)?;
    parsed.try_into().ok()
}

/// Reads a duration above 0, as Go writes them.
pub fn positive_duration(text: &str) -> Option<Duration> {
    duration(text).filter(|value| !value.is_zero())
}

pub(crate) fn size(text: &str) -> Option<u64> {
    let size = text.parse::<ByteSize>().ok()?.as_u64();
    (1024..=1024 * 1024 * 1024).contains(&size).then_some(size)
}

pub(crate) fn present(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

pub(crate) fn path(text: &str) -> Option<PathBuf> {
    present(text).map(PathBuf::from)
}

pub(crate) fn secret(text: &str) -> Option<Secret> {
    present(text).map(Secret::new)
}

/// Reads the URL of a server without TLS.
pub(crate) fn http_url(text: &str) -> Option<Secret> {
    let url: hyper::Uri = text.parse().ok()?;
    (url.scheme_str() == Some("http") && url.host().is_some()).then(|| Secret::new(text))
}

/// Reads the URL of a collector. `host:port` alone, as OpenTelemetry's Go exporter is told it, is without encryption.
pub(crate) fn collector(text: &str) -> Option<String> {
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let read: hyper::Uri = url.parse().ok()?;
    let is_url =
        matches!(read.scheme_str(), Some("http" | "https")) && read.host().is_some_and(|host| !host.is_empty());
    // A word alone could be anything.
    let is_place = text.contains("://") || (read.port_u16().is_some() && read.path() == "/" && read.query().is_none());
    (is_url && is_place).then_some(url)
}

/// The shortest admin token: of random hexadecimal digits, 64 bits.
const TOKEN_CHARACTERS_MIN: usize = 16;

pub(crate) fn token(text: &str) -> Option<Secret> {
    let usable = text.len() >= TOKEN_CHARACTERS_MIN && text.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| Secret::new(text))
}

pub(crate) fn hosts(text: &str) -> Option<Vec<String>> {
    let usable = |name: &String| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    list(text).filter(|names| names.iter().all(usable))
}

pub(crate) fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

pub(crate) fn list(text: &str) -> Option<Vec<String>> {
    text.split(',').map(|item| present(item.trim())).collect()
}

/// Reads the beginnings of topics: whole tokens, and no wildcards, which topics do not have.
pub(crate) fn topic_prefixes(text: &str) -> Option<Vec<String>> {
    let usable = |prefix: &String| {
        let tokens = prefix.strip_suffix('.').unwrap_or(prefix);
        let is_name = |byte: u8| byte.is_ascii_graphic() && byte != b'*' && byte != b'>';
        !tokens.split('.').any(str::is_empty) && tokens.bytes().all(is_name)
    };
    list(text).filter(|prefixes| prefixes.iter().all(usable))
}

/// Reads a level or a filter. One bare word must be a level: a misspelt one would otherwise be a filter for a module of
/// that name and silence everything else.
pub(crate) fn log_level(text: &str) -> Option<LogLevel> {
    let filter = text.contains(['=', ',']);
    let valid = if filter { EnvFilter::builder().parse(text).is_ok() } else { text.parse::<LevelFilter>().is_ok() };
    valid.then(|| LogLevel(text.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        let seconds = |text| duration(text).map(|value| value.as_secs_f64());
        assert_eq!(seconds("250ms"), Some(0.25));
        assert_eq!(seconds("1.5h"), Some(5400.0));
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("0"), Some(0.0));
        assert_eq!(seconds("0s"), Some(0.0));
        assert_eq!(seconds(".5s"), Some(0.5));
        for wrong in ["", ".", ".s", "5", "-1s", "PT5S", "1s ago", "1d", "soon"] {
            assert_eq!(seconds(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn flags_are_written_as_in_go() {
        for text in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(flag(text), Some(true), "{text}");
        }
        for text in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(flag(text), Some(false), "{text}");
        }
        for wrong in ["", "yes", "on", "2", "tr"] {
            assert_eq!(flag(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_collector_may_be_named_as_a_go_exporter_is_told_it() {
        for (text, url) in [
            ("otel-collector:4317", "http://otel-collector:4317"),
            ("[::1]:4317", "http://[::1]:4317"),
            ("http://localhost:4317", "http://localhost:4317"),
            ("https://collector.example/otlp", "https://collector.example/otlp"),
        ] {
            assert_eq!(collector(text).as_deref(), Some(url), "{text}");
        }
        for wrong in ["", "collector", ":4317", "a b:4317", "host:port", "host:4317/v1", "ftp://host:1", "http://"] {
            assert_eq!(collector(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        assert_eq!(size("4MiB"), Some(4 * 1024 * 1024));
        assert_eq!(size("64 kB"), Some(64_000));
        assert_eq!(size("2048"), Some(2048));
        for wrong in ["", "1", "-4MiB", "4 bananas", "2TiB"] {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_misspelt_level_is_no_filter() {
        assert!(log_level("WARN").is_some());
        assert!(log_level("info,async_nats=warn").is_some());
        assert!(log_level("inof").is_none());
        assert!(log_level("info,a=loud").is_none());
    }

    #[test]
    fn a_token_is_long_enough_and_fits_a_header() {
        assert!(token("0123456789abcdef").is_some());
        for wrong in ["", "0123456789abcde", "0123456789 abcdef", "0123456789äbcdef", "0123456789\nabcdef"] {
            assert!(token(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_topic_prefix_is_made_of_whole_tokens() {
        assert_eq!(topic_prefixes("events.player, events.").unwrap(), ["events.player", "events."]);
        for wrong in ["", ".", "events..", "events.>", "*", "a..b", ".a", "a b", "a,,b"] {
            assert!(topic_prefixes(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn a_host_is_a_name_alone() {
        assert_eq!(hosts("a.example, b").unwrap(), ["a.example", "b"]);
        for wrong in ["", "a,,b", "http://a.example", "a.example:80", "*.example", "a/b"] {
            assert!(hosts(wrong).is_none(), "{wrong:?}");
        }
    }
}
