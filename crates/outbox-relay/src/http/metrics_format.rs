//! Which of two formats a scraper wants.

use axum::http::{HeaderMap, header};

/// How metrics are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum MetricsFormat {
    /// The text format of Prometheus, 0.0.4: whoever asks for nothing gets what everything reads.
    Plain,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// Reads the header `Accept`: OpenMetrics is for those who like it better than plain text.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let mut best = (0.0, Self::Plain);
        for range in accepted.flat_map(|value| value.split(',')) {
            if let Some((format, quality)) = read(range)
                && quality > best.0
            {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// Reads one range of the header: a format that is served here, and how much it is liked.
fn read(range: &str) -> Option<(MetricsFormat, f32)> {
    let mut parts = range.split(';').map(str::trim);
    let essence = parts.next()?.to_ascii_lowercase();
    let (mut version, mut quality) = (None, 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = Some(value.trim().trim_matches('"')),
            "q" => quality = value.trim().parse().ok()?,
            _ => {}
        }
    }
    let format = match (essence.as_str(), version) {
        ("application/openmetrics-text", None | Some("1.0.0" | "0.0.1")) => MetricsFormat::OpenMetrics,
        ("text/plain", None | Some("0.0.4")) | ("text/*" | "*/*", _) => MetricsFormat::Plain,
        _ => return None,
    };
    Some((format, quality))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn wanted(accept: &'static str) -> MetricsFormat {
        MetricsFormat::wanted(&HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn plain_text_is_for_everybody_who_does_not_ask_for_open_metrics() {
        assert_eq!(MetricsFormat::wanted(&HeaderMap::new()), MetricsFormat::Plain);
        for accept in [
            "*/*",
            "text/plain",
            "text/plain;version=0.0.4;q=1,*/*;q=0.1",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/json",
            "application/openmetrics-text;version=2.0.0",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=bad",
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4",
        ] {
            assert_eq!(wanted(accept), MetricsFormat::Plain, "{accept}");
        }
    }

    #[test]
    fn open_metrics_is_for_a_prometheus_that_likes_it_better() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        ] {
            assert_eq!(wanted(accept), MetricsFormat::OpenMetrics, "{accept}");
        }
    }
}
