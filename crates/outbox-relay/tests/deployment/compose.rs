//! `docker-compose.yml`: valid, hardened, and with the names and variables of the earlier relay's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{assert_changes_need, drain_timeout, migrated_database, start_with, strings, text_map, tool, yaml};
use crate::documents::{read, root};

/// What compose needs to be seen valid: the specification's grammar, and every name that is used is defined.
const COMPOSE_CHECK: &str = "
import sys
from compose_spec import PyCompose, _PyOptions
options = _PyOptions()
options.apply_merge = True
compose = options.from_yaml(sys.stdin.read())
compose.validate()
PyCompose(compose).to_spec()
";

#[test]
fn the_compose_file_is_what_its_specification_says() {
    let text = read(&root().join("docker-compose.yml"));
    check_compose(&text).unwrap();
    check_compose(&compose().to_string()).unwrap();
    for (from, to) in [("restart: unless-stopped", "restart: perhaps"), ("secrets: [admin-token]", "secrets: [other]")]
    {
        assert!(check_compose(&text.replace(from, to)).is_err(), "{to}: the validator finds nothing");
    }
}

fn check_compose(text: &str) -> Result<(), String> {
    let mut command = Command::new(tool("kubernetes-validate").with_file_name("python"));
    command.args(["-c", COMPOSE_CHECK]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn compose_mounts_and_builds_what_exists() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    let mut files: Vec<&str> = Vec::new();
    for service in services.values() {
        files.extend(service["build"]["dockerfile"].as_str());
        let volumes = strings(&service["volumes"]);
        files.extend(volumes.filter(|volume| volume.starts_with('.')).filter_map(|volume| volume.split(':').next()));
        for dependency in service["depends_on"].as_object().into_iter().flat_map(|map| map.keys()) {
            assert!(services.contains_key(dependency), "no service {dependency}");
        }
    }
    files.extend(compose["secrets"].as_object().unwrap().values().filter_map(|secret| secret["file"].as_str()));
    assert!(files.len() > 7, "{files:?}");
    for file in files {
        assert!(root().join(file).exists(), "docker-compose.yml names {file}");
    }
}

#[test]
fn compose_runs_three_hardened_relays_that_prometheus_finds() {
    let compose = compose();
    let relay = &compose["services"]["outbox-relay"];
    assert_eq!(relay["deploy"]["replicas"], 3);
    assert_eq!(relay["ports"][0]["target"], 8085);
    assert_eq!(relay["environment"]["HTTP_PORT"], "8085");
    assert_eq!(relay["mem_limit"], "128m");
    assert_eq!(relay["user"], "65532:65532");
    assert_eq!((&relay["read_only"], &relay["cap_drop"][0]), (&Value::Bool(true), &Value::from("ALL")));
    let grace = relay["stop_grace_period"].as_str().and_then(|text| text.strip_suffix('s')).unwrap();
    assert!(grace.parse::<u64>().unwrap() > drain_timeout(&BTreeMap::new()) + 2);

    let scraped = &yaml(&root().join("config/prometheus/prometheus.yml"))[0]["scrape_configs"][0];
    assert_eq!(scraped["dns_sd_configs"][0]["names"][0], "outbox-relay");
    assert_eq!(scraped["dns_sd_configs"][0]["port"], 8085);
}

#[test]
fn compose_listens_on_this_machine_only_and_pins_every_image() {
    for (name, service) in compose()["services"].as_object().unwrap() {
        let image = service["image"].as_str().unwrap();
        let tag = image.split_once(':').map(|(_, tag)| tag);
        assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image}");
        for port in service["ports"].as_array().into_iter().flatten() {
            let local = port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:"));
            assert!(local || port["host_ip"] == "127.0.0.1", "{name}: {port}");
        }
    }
}

#[test]
fn compose_has_the_services_that_stand_around_the_earlier_relay() {
    let compose = compose();
    let services = compose["services"].as_object().unwrap();
    for name in
        ["postgres", "redis", "nats", "player", "outbox-relay", "jaeger", "otel-collector", "prometheus", "grafana"]
    {
        assert!(services.contains_key(name), "no service {name}");
    }
    let tracing = &services["outbox-relay"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"];
    assert_eq!(tracing, "otel-collector:4317");
    assert_eq!(services["player"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"], "http://otel-collector:4317");
}

#[test]
fn every_variable_of_compose_has_a_default_and_a_line_in_the_example() {
    let text = read(&root().join("docker-compose.yml"));
    let mut defaults: BTreeMap<&str, &str> = BTreeMap::new();
    for variable in text.split("${").skip(1).map(|rest| rest.split('}').next().unwrap()) {
        let (name, default) = variable.split_once(":-").unwrap_or_else(|| panic!("{variable} has no default"));
        let before = defaults.insert(name, default);
        assert!(before.is_none_or(|before| before == default), "{name} has two defaults");
    }
    let example = read(&root().join(".env.example"));
    let lines = example.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let example: BTreeMap<&str, &str> = lines.map(|line| line.split_once('=').unwrap()).collect();
    assert_eq!(example, defaults);

    let chosen = BTreeMap::from([("OUTBOX_WORKERS", "2"), ("POSTGRES_DB", "shop")]);
    let relay = &compose_with(&chosen)["services"]["outbox-relay"]["environment"];
    assert_eq!(relay["OUTBOX_WORKERS"], "2");
    let dsn: tokio_postgres::Config = relay["POSTGRES_DSN"].as_str().unwrap().parse().unwrap();
    assert_eq!((dsn.get_user(), dsn.get_dbname()), (Some("relay"), Some("shop")));
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_start_with_the_settings_of_compose() {
    let (compose, database) = (compose(), migrated_database().await);
    let token = read(&root().join(compose["secrets"]["admin-token"]["file"].as_str().unwrap()));
    let services = compose["services"].as_object().unwrap();
    let relays = services.iter().filter(|(_, service)| service["image"] == "gamemesh/outbox-relay:local");
    let mut started = BTreeSet::new();
    for (name, service) in relays {
        let set = text_map(&service["environment"]);
        let relay = start_with(&set, &database, &token);
        if name == "outbox-relay" {
            assert_changes_need(&relay, &token);
        }
        let secrets: BTreeSet<&str> = strings(&service["secrets"]).collect();
        let named: BTreeSet<&str> = set.values().filter_map(|value| value.strip_prefix("/run/secrets/")).collect();
        assert_eq!(named, secrets, "{name}");
        started.insert(name.as_str());
    }
    assert_eq!(started, BTreeSet::from(["migrate", "outbox-relay"]));
}

/// Whether the program has this command, its own tests say.
#[test]
fn containers_ask_the_program_itself_whether_it_lives() {
    let program = "/usr/local/bin/outbox-relay";
    let image = read(&root().join("deployments/docker/Dockerfile.outbox-relay"));
    assert!(image.contains(&format!("\nENTRYPOINT [\"{program}\"]\n")), "{image}");
    assert!(image.contains(&format!(" CMD [\"{program}\", \"health\"]\n")), "{image}");
    let check = &compose()["services"]["outbox-relay"]["healthcheck"]["test"];
    assert_eq!(strings(check).collect::<Vec<_>>(), ["CMD", program, "health"]);
}

#[test]
fn spans_of_every_service_go_through_the_collector_to_jaeger() {
    let compose = compose();
    let mounted = strings(&compose["services"]["otel-collector"]["volumes"]).next().unwrap();
    let (file, place) = mounted.split_once(':').unwrap();
    let command = strings(&compose["services"]["otel-collector"]["command"]).next().unwrap();
    assert_eq!(command.strip_prefix("--config="), place.strip_suffix(":ro"));
    let collector = &yaml(&root().join(file))[0];
    assert_eq!(collector["receivers"]["otlp"]["protocols"]["grpc"]["endpoint"], "0.0.0.0:4317");
    assert_eq!(collector["exporters"]["otlp/jaeger"]["endpoint"], "jaeger:4317");
    let traces = &collector["service"]["pipelines"]["traces"];
    for kind in ["receivers", "processors", "exporters"] {
        let used: Vec<&str> = strings(&traces[kind]).collect();
        let defined: Vec<&String> = collector[kind].as_object().unwrap().keys().collect();
        assert!(!used.is_empty() && used.iter().all(|name| defined.iter().any(|known| known == name)), "{kind}");
    }
}

#[test]
fn prometheus_and_grafana_have_what_is_mounted() {
    let compose = compose();
    let prometheus = &yaml(&root().join("config/prometheus/prometheus.yml"))[0];
    let alertmanager = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0].as_str().unwrap();
    assert!(compose["services"][alertmanager.split(':').next().unwrap()].is_object(), "{alertmanager}");
    let grafana: Vec<&str> = strings(&compose["services"]["grafana"]["volumes"]).collect();
    let provided = &yaml(&root().join("config/grafana/provisioning/dashboards/outbox.yml"))[0];
    let folder = provided["providers"][0]["options"]["path"].as_str().unwrap();
    assert!(grafana.contains(&format!("./config/grafana/dashboards:{folder}:ro").as_str()), "{grafana:?}");
}

fn compose() -> Value {
    compose_with(&BTreeMap::new())
}

/// Reads the file as compose does that finds these variables in `.env`.
fn compose_with(chosen: &BTreeMap<&str, &str>) -> Value {
    let mut found = yaml(&root().join("docker-compose.yml"));
    assert_eq!(found.len(), 1);
    resolved(found.remove(0), chosen)
}

/// Puts in the place of each `${NAME:-default}` what was chosen, or the default; what it is in stays a text.
fn resolved(value: Value, chosen: &BTreeMap<&str, &str>) -> Value {
    match value {
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, resolved(value, chosen))).collect(),
        Value::Array(items) => items.into_iter().map(|item| resolved(item, chosen)).collect(),
        Value::String(text) => {
            let mut parts = text.split("${");
            let mut text = parts.next().unwrap().to_owned();
            for part in parts {
                let (variable, rest) = part.split_once('}').unwrap();
                let (name, default) = variable.split_once(":-").unwrap();
                text.push_str(chosen.get(name).copied().unwrap_or(default));
                text.push_str(rest);
            }
            Value::String(text)
        }
        other => other,
    }
}
