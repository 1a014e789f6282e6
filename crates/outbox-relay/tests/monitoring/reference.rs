use std::fmt::Write;

use gamemesh_outbox::telemetry::reference::{ALL, About, Kind, LATE_AFTER_SECONDS, Scope};

use super::{path, read};

const INTRODUCTION: &str = "\
# Metrics

<!-- Written from the table in crates/gamemesh-outbox/src/telemetry/reference.rs; a test fails when this page is older. -->

A relay serves its metrics at `/metrics` on `HTTP_PORT`: in the plain text format of Prometheus (0.0.4), and in OpenMetrics
where the header `Accept` asks for that. Every series has the label `service` (`OTEL_SERVICE_NAME`); Prometheus adds `job` and
`instance`. Every counter, and every value of a label that is known beforehand, is there with 0 from the start, so that
`increase()` sees the first one. No label ever holds an id or the text of an error. Names that are not known beforehand (topics,
types, routes of the endpoints) have a series of their own as long as they are among the first that a replica meets, and are
`other` after that; a counter that is there stays until the process ends.

Names, types, labels and buckets of the earlier relay are kept; `process_*` are its too. Its `go_*` say what its language's
runtime does, which there is none of here. A sum over both relays is right, `histogram_quantile` included: in the plain
format a bucket's end is written as there (`1`), and in OpenMetrics, as that demands, `1.0`, which is the same number.

The **scope** says how the numbers of several replicas become one. What is read from the *table* is the same number on every
replica: take it once, `max without (instance, pod) (...)`. What belongs to a *replica* is added up, after `rate()` or
`increase()`: `sum without (instance, pod) (rate(...[5m]))`.

The alerts on these metrics are in `config/prometheus/alerts.yml`, with a section for each in [runbooks.md](runbooks.md);
`config/grafana/dashboards/outbox.json` shows them all.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for about in ALL {
        describe(about, &mut page);
    }
    page
}

fn describe(about: &About, page: &mut String) {
    let (kind, series) = match about.kind {
        Kind::Counter => ("Counter", format!("{}_total", about.name)),
        Kind::Gauge => ("Gauge", about.name.to_owned()),
        Kind::Histogram => ("Histogram", about.name.to_owned()),
    };
    let scope = match about.scope {
        Scope::Table => "table",
        Scope::Replica => "replica",
    };
    let _ = write!(page, "\n## `{series}`\n\n*{}*\n\n{}.\n\n{kind}, scope {scope}", about.answers, about.help);
    for label in about.labels {
        let values: Vec<String> = label.values.iter().map(|value| format!("`{value}`")).collect();
        let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
        let _ = write!(page, ", label `{}`{values}", label.name);
    }
    page.push_str(".\n");
}

/// Set `UPDATE_DOCS=1` to write the page instead.
#[test]
fn the_metrics_page_is_current() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path("docs/metrics.md"), page()).unwrap();
    }
    let current = read("docs/metrics.md") == page();
    assert!(current, "docs/metrics.md is not current: run the tests once with UPDATE_DOCS=1");
}

#[test]
fn the_rules_call_late_what_the_histogram_calls_late() {
    let slice = format!("job:outbox_oldest_due_age_seconds:max > bool {LATE_AFTER_SECONDS}");
    assert!(read("config/prometheus/alerts.yml").contains(&slice), "expected {slice}");
}
