//! The alerts without a server: promtool reads and tries them, and each has what it needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use super::{path, read, unknown_metrics};

const RULES: &str = "config/prometheus/alerts.yml";
const RUNBOOKS: &str = "https://github.com/gamemesh/gamemesh-outbox/blob/main/docs/runbooks.md#";

fn promtool(arguments: &[&str], files: &[PathBuf]) {
    let output = Command::new("promtool").args(arguments).args(files).output();
    let output = output.expect("promtool is there: scripts/test installs what is missing");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "promtool {arguments:?}:\n{}", String::from_utf8_lossy(&text));
}

fn case_files() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(path("config/prometheus/tests")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Returns what stands after `key` in each line that begins with it.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(key))
        .map(str::trim)
        .collect()
}

#[test]
fn promtool_accepts_rules_and_configuration() {
    promtool(&["check", "rules"], &[path(RULES)]);
    promtool(&["check", "config"], &[path("config/prometheus/prometheus.yml")]);
}

#[test]
fn every_case_of_every_alert_holds() {
    promtool(&["test", "rules"], &case_files());
}

/// What the cases show about one alert.
#[derive(Debug, Default)]
struct Shown {
    cases: u32,
    fires: bool,
    silent: bool,
    clears: bool,
}

#[test]
fn every_alert_is_seen_to_fire_to_stay_silent_and_to_clear() {
    let mut shown: BTreeMap<String, Shown> = BTreeMap::new();
    for file in case_files() {
        let text = std::fs::read_to_string(file).unwrap();
        for case in text.split("\n  - name:").skip(1) {
            // In the order of time: whether the alert was seen firing at each look.
            let looks: Vec<bool> =
                case.split("- eval_time:").skip(1).map(|look| look.contains("exp_labels:")).collect();
            let Some(alert) = values(case, "alertname:").first().copied() else { continue };
            let shown = shown.entry(alert.to_owned()).or_default();
            shown.cases += 1;
            shown.fires |= looks.contains(&true);
            shown.silent |= !looks.contains(&true);
            shown.clears |= looks.windows(2).any(|pair| pair == [true, false]);
        }
    }
    for alert in values(&read(RULES), "alert:") {
        let shown = shown.remove(alert).unwrap_or_default();
        assert!(shown.cases >= 3 && shown.fires && shown.silent && shown.clears, "{alert}: {shown:?}");
    }
    assert!(shown.is_empty(), "cases of alerts that do not exist: {shown:?}");
}

#[test]
fn every_alert_has_a_severity_and_leads_to_its_runbook() {
    let (rules, runbooks) = (read(RULES), read("docs/runbooks.md"));
    let alerts: Vec<&str> = rules.split("- alert:").skip(1).collect();
    assert!(alerts.len() >= 14, "{}", alerts.len());
    for alert in alerts {
        let name = alert.lines().next().unwrap().trim();
        assert!(["critical", "warning"].contains(&values(alert, "severity:")[0]), "{name}");
        assert!(alert.contains("summary:") && alert.contains("description:"), "{name}");
        assert_eq!(values(alert, "runbook_url:"), [format!("{RUNBOOKS}{}", name.to_lowercase())]);
        assert!(runbooks.contains(&format!("\n## {name}\n")), "docs/runbooks.md says nothing about {name}");
    }
    let sections = runbooks.lines().filter_map(|line| line.strip_prefix("## "));
    let known = values(&rules, "alert:");
    for section in sections {
        assert!(known.contains(&section), "docs/runbooks.md has a section about {section}, which is no alert");
    }
}

#[test]
fn rules_and_runbooks_name_only_metrics_that_exist() {
    for file in [RULES, "docs/runbooks.md"] {
        assert_eq!(unknown_metrics(&read(file)), Vec::<&str>::new(), "{file}");
    }
    assert_eq!(unknown_metrics("rate(gamemesh_outbox_events_lost_total[5m])"), ["gamemesh_outbox_events_lost_total"]);
}
