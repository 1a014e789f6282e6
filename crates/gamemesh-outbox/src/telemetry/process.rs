//! What is told from outside of the relay: requests to its endpoints, and what its process uses.

use std::time::Duration;

use super::Telemetry;
use super::handle::{OTHER, show};

/// What the process uses now. Whoever serves the metrics asks the system for it.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFigures {
    /// Processor time since the start, in seconds.
    pub cpu_seconds: f64,
    /// Memory that it holds.
    pub resident_bytes: u64,
    /// Its address space.
    pub virtual_bytes: u64,
    /// Open file descriptors.
    pub open_fds: u64,
    /// Most file descriptors that may be open.
    pub max_fds: u64,
    /// Unix time of the start, in seconds.
    pub started_at: f64,
}

/// Methods that have a name in the metrics: a client can make up any other.
const METHODS: [&str; 3] = ["GET", "HEAD", "POST"];

impl Telemetry {
    /// Counts a request to the endpoints. `route` is the route's template, or nothing where no route is.
    pub fn requested(&self, method: &str, route: Option<&str>, status: u16, took: Duration) {
        let method = METHODS.into_iter().find(|known| *known == method).unwrap_or(OTHER);
        let (route, code) = (route.unwrap_or(OTHER), status.to_string());
        let metrics = self.metrics();
        metrics.http_requests.inc_by([method, route, &code], 1);
        if status >= 400 {
            metrics.http_errors.inc_by([method, route, &code], 1);
        }
        metrics.http_request_duration_seconds.observe([method, route], took.as_secs_f64());
    }

    /// Shows what the process uses.
    pub fn process(&self, figures: &ProcessFigures) {
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let metrics = self.metrics();
        show(&metrics.process_cpu_seconds, figures.cpu_seconds);
        metrics.process_resident_memory_bytes.set(gauge(figures.resident_bytes));
        metrics.process_virtual_memory_bytes.set(gauge(figures.virtual_bytes));
        metrics.process_open_fds.set(gauge(figures.open_fds));
        metrics.process_max_fds.set(gauge(figures.max_fds));
        metrics.process_start_time_seconds.set(figures.started_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_what_a_client_makes_up_is_one_series() {
        let telemetry = Telemetry::new("test");
        let took = Duration::from_millis(3);
        telemetry.requested("GET", Some("/healthz"), 200, took);
        telemetry.requested("GET", Some("/readyz"), 503, took);
        for number in 0..200 {
            telemetry.requested(&format!("MADE{number}"), None, 404, took);
        }
        let text = telemetry.encode_metrics();
        for line in [
            "gamemesh_http_requests_total{service=\"test\",method=\"GET\",path=\"/healthz\",status=\"200\"} 1\n",
            "gamemesh_http_errors_total{service=\"test\",method=\"GET\",path=\"/readyz\",status=\"503\"} 1\n",
            "gamemesh_http_requests_total{service=\"test\",method=\"other\",path=\"other\",status=\"404\"} 200\n",
            "gamemesh_http_request_duration_seconds_bucket{service=\"test\",le=\"0.005\",method=\"GET\",path=\"/healthz\"} 1\n",
        ] {
            let mut of_metric = text.lines().filter(|found| found.starts_with("gamemesh_http"));
            assert!(of_metric.any(|found| found == line.trim_end()), "expected {line}in\n{text}");
        }
        assert!(!text.contains("MADE"), "{text}");
        assert!(
            !text.contains("gamemesh_http_errors_total{service=\"test\",method=\"GET\",path=\"/healthz\""),
            "{text}"
        );
    }

    #[test]
    fn what_the_process_uses_is_shown_as_it_was_told_last() {
        let telemetry = Telemetry::new("test");
        let figures = ProcessFigures { cpu_seconds: 1.5, resident_bytes: 7, started_at: 2.25, ..Default::default() };
        telemetry.process(&ProcessFigures { cpu_seconds: 1.0, ..figures });
        telemetry.process(&figures);
        let text = telemetry.encode_metrics();
        for line in [
            "process_cpu_seconds_total{service=\"test\"} 1.5\n",
            "process_resident_memory_bytes{service=\"test\"} 7\n",
            "process_start_time_seconds{service=\"test\"} 2.25\n",
        ] {
            assert!(text.contains(line), "expected {line}in\n{text}");
        }
    }
}
