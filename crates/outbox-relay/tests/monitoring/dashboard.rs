//! The dashboard: every query of every panel finds something in a real Prometheus.

use std::collections::HashSet;

use gamemesh_outbox::telemetry::reference::ALL;
use outbox_testkit::wait_until;
use serde_json::Value;

use super::server::Watched;
use super::{read, unknown_metrics};

const DASHBOARD: &str = "config/grafana/dashboards/outbox.json";

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

/// Lists the panels, without the rows.
fn panels(dashboard: &Value) -> Vec<&Value> {
    dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row").collect()
}

/// Lists title and expression of each query.
fn queries(dashboard: &Value) -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for panel in panels(dashboard) {
        for target in panel["targets"].as_array().unwrap() {
            queries.push((panel["title"].as_str().unwrap().to_owned(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    queries
}

#[test]
fn the_dashboard_is_complete_and_placed_without_overlaps() {
    let dashboard = dashboard();
    assert_eq!(dashboard["uid"], "gamemesh-outbox");
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 39, "as Grafana 11 writes it");
    assert_eq!(dashboard["templating"]["list"][0]["type"], "datasource");

    let (mut ids, mut places) = (HashSet::new(), HashSet::new());
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{}: its id is taken", panel["title"]);
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(places.insert((x, y)), "{}: its place is taken", panel["title"]);
            }
        }
    }
    for panel in panels(&dashboard) {
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{}", panel["title"]);
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{}", panel["title"]);
    }
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let text: String = queries(&dashboard()).into_iter().map(|(_, expression)| expression + "\n").collect();
    assert_eq!(unknown_metrics(&text), Vec::<&str>::new());
    let text = text + &read("config/prometheus/alerts.yml");
    for about in ALL {
        assert!(about.series().iter().any(|series| text.contains(series.as_str())), "nothing shows {}", about.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_returns_data() {
    let watched = Watched::start().await;
    for (title, expression) in queries(&dashboard()) {
        let expression = expression.replace("$service", ".*").replace("$__rate_interval", "4s");
        assert!(!expression.contains('$'), "{title}: a variable that the test does not know: {expression}");
        wait_until(&format!("{title}: {expression}"), async || {
            // Traffic while it looks, so that rates are rates of something.
            watched.insert("events.player").await;
            let found = watched.prometheus.query(&expression).await.unwrap();
            found.iter().any(|sample| sample["value"][1] != "NaN").then_some(())
        })
        .await;
    }
}
