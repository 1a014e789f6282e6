//! One outage, one page: what fires in an outage of each kind, given to a real Alertmanager with the inhibitions that are
//! shipped.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use outbox_testkit::servers::AlertmanagerServer;
use outbox_testkit::wait_until;
use serde_json::{Value, json};

use super::{path, read};

const CONFIG: &str = "config/prometheus/alertmanager.yml";

/// Each outage of `config/prometheus/tests/outages.yml`, and the one alert on it that somebody is called for.
const PAGES: [(&str, &str); 11] = [
    ("the bus is down", "OutboxBusDown"),
    ("the bus is down for a fleet of the earlier relay", "OutboxPublishStalled"),
    ("the bus is down for a mixed fleet", "OutboxBusDown"),
    ("the database is away", "OutboxStoreDown"),
    ("no outcome can be written", "OutboxOutcomesNotWritten"),
    ("every replica is gone", "OutboxEveryReplicaGone"),
    ("every replica goes while the bus is down", "OutboxEveryReplicaGone"),
    ("every target is gone", "OutboxNothingScraped"),
    ("every replica is stuck", "OutboxPollStale"),
    ("the targets are no relays", "OutboxMetricsGone"),
    ("more comes in than goes out", "OutboxLagFastBurn"),
];

#[test]
fn alertmanager_accepts_its_configuration() {
    let mut amtool = Command::new("amtool");
    let output = amtool.arg("check-config").arg(path(CONFIG)).output();
    let output = output.expect("amtool is there: scripts/test installs what is missing");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_that_fires_in_an_outage_one_alert_is_a_page() {
    let mut outages = outages();
    for (outage, page) in PAGES {
        let fires = outages.remove(outage).unwrap_or_else(|| panic!("no case is named {outage}"));
        let alertmanager = AlertmanagerServer::start(&read(CONFIG)).await.unwrap();
        let alerts: Vec<Value> = fires.iter().map(|labels| json!({ "labels": labels })).collect();
        alertmanager.fire(&json!(alerts)).await.unwrap();
        wait_until(&format!("{outage}: of {alerts:?} only {page} is a page"), async || {
            let told = alertmanager.alerts(false).await.unwrap();
            let critical = |alert: &&Value| alert["labels"]["severity"] == "critical";
            let pages: Vec<&Value> = told.iter().filter(critical).map(|alert| &alert["labels"]["alertname"]).collect();
            (pages == [page]).then_some(())
        })
        .await;
        let held_back = alertmanager.alerts(true).await.unwrap().len();
        assert_eq!(held_back + 1, alerts.len(), "{outage}: warnings are held back as well");
    }
    assert!(outages.is_empty(), "nobody says which page these are: {:?}", outages.keys());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_another_cause_or_is_of_another_outbox_is_told_beside_an_outage() {
    let alertmanager = AlertmanagerServer::start(&read(CONFIG)).await.unwrap();
    let alert = |name: &str, service: &str| json!({ "labels": { "alertname": name, "service": service, "component": "outbox-relay", "severity": "critical" } });
    let alerts = [
        alert("OutboxBusDown", "shop"),
        alert("OutboxLagHard", "shop"),
        alert("OutboxEventsDeadLettered", "shop"),
        alert("OutboxLagHard", "game"),
    ];
    alertmanager.fire(&json!(alerts)).await.unwrap();
    wait_until("the outage holds back what follows from it", async || {
        let held_back = alertmanager.alerts(true).await.unwrap();
        let labels = held_back.first().map(|alert| (&alert["labels"]["alertname"], &alert["labels"]["service"]));
        (held_back.len() == 1 && labels == Some((&"OutboxLagHard".into(), &"shop".into()))).then_some(())
    })
    .await;
    assert_eq!(alertmanager.alerts(false).await.unwrap().len(), 3);
}

/// Reads what fires at the end of each outage, as labels of alerts.
fn outages() -> BTreeMap<String, Vec<BTreeMap<String, String>>> {
    let cases: Value = serde_saphyr::from_str(&read("config/prometheus/tests/outages.yml")).unwrap();
    let mut outages = BTreeMap::new();
    for case in cases["tests"].as_array().unwrap() {
        let looks = case["promql_expr_test"].as_array().unwrap();
        assert!(looks.iter().all(|look| look["expr"] == "ALERTS{alertstate=\"firing\"}"), "everything that fires");
        let samples = looks.last().unwrap()["exp_samples"].as_array().unwrap();
        let fires = samples.iter().map(|sample| labels(sample["labels"].as_str().unwrap())).collect();
        outages.insert(case["name"].as_str().unwrap().to_owned(), fires);
    }
    outages
}

/// Reads `ALERTS{name="value", ...}`.
fn labels(series: &str) -> BTreeMap<String, String> {
    let inside = series.strip_prefix("ALERTS{").and_then(|rest| rest.strip_suffix('}')).unwrap();
    let pairs = inside.split(", ").map(|pair| pair.split_once('=').unwrap());
    let pairs = pairs.filter(|(name, _)| *name != "alertstate");
    pairs.map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[test]
fn inhibitions_name_only_alerts_that_exist() {
    let rules = read("config/prometheus/alerts.yml");
    let known: BTreeSet<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let config = read(CONFIG);
    let words = config.split(|c: char| !c.is_ascii_alphanumeric());
    for word in words.filter(|word| word.starts_with("Outbox")) {
        // `OutboxLag.*` stands for all that begin so.
        assert!(known.contains(word) || word == "OutboxLag", "{word} is no alert");
    }
}
