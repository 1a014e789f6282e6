use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::program::{Relay, command, run, transcript};

/// Lists the sample files of a folder.
fn samples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

/// Names and values.
type Settings<'a> = &'a [(&'a str, &'a str)];

#[test]
fn a_wrong_file_is_explained() {
    for path in samples("invalid") {
        let file = path.file_name().unwrap().to_str().unwrap();
        let output = command(&["run", "--config", file], &[]).current_dir(path.parent().unwrap()).output().unwrap();
        let name = format!("invalid_{}", path.file_stem().unwrap().to_str().unwrap());
        insta::assert_snapshot!(name, transcript(&output));
    }
}

#[test]
fn a_valid_file_is_taken_without_a_word() {
    for path in samples("valid") {
        let output = run(&["migrate", "print", "--config", path.to_str().unwrap()], &[]);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", transcript(&output));
    }
}

#[test]
fn everything_wrong_in_the_environment_is_named_at_once() {
    let environment = [
        ("OUTBOX_BATCH_SIZE", "0"),
        ("OUTBOX_POLL_INTERVALL", "1s"),
        ("OUTBOX_COLOUR", "red"),
        ("OUTBOX_PUBLISH_TIMEOUT", "0s"),
        ("OUTBOX_BATCH_BYTES", "4 bananas"),
        ("OUTBOX_NATS_STREAMS", "PLAYER"),
        ("EVENT_BUS", "carrier-pigeon"),
        ("HTTP_PORT", "80850"),
        ("LOG_LEVEL", "inof"),
        ("OTEL_TRACES_SAMPLER", "xray"),
        ("DATABASE_URL", "mysql://relay:hunter2@db/app"),
        ("POSTGRES_DSN", "host=db"),
        ("POSTGRES_DSN_FILE", "/run/secrets/dsn"),
    ];
    insta::assert_snapshot!(transcript(&run(&["run"], &environment)));
}

#[test]
fn a_missing_database_names_both_settings() {
    insta::assert_snapshot!(transcript(&run(&[], &[])));
}

#[test]
fn an_unusable_database_setting_is_explained() {
    for (name, variable, value) in [
        ("dsn_with_an_unknown_sslmode", "POSTGRES_DSN", "host=127.0.0.1 user=relay password=hunter2 sslmode=maybe"),
        ("url_with_a_wrong_port", "DATABASE_URL", "postgres://relay:hunter2@127.0.0.1:port/app"),
        ("sqlite_in_memory", "DATABASE_URL", "sqlite::memory:"),
    ] {
        insta::assert_snapshot!(name, transcript(&run(&["migrate", "status"], &[(variable, value)])));
    }
}

#[test]
fn the_environment_goes_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    std::fs::write(&file, "[outbox]\nbatch_size = 0\n").unwrap();
    let file = [("OUTBOX_CONFIG", file.to_str().unwrap())];
    // What the environment forgives the earlier relay's users, the file does not.
    assert_eq!(run(&["migrate", "print"], &file).status.code(), Some(2));
    assert_eq!(run(&["migrate", "print"], &[file[0], ("OUTBOX_BATCH_SIZE", "5")]).status.code(), Some(0));
}

#[test]
fn variables_that_kubernetes_adds_for_a_service_are_no_settings() {
    let links = [
        ("OUTBOX_RELAY_SERVICE_HOST", "10.0.0.1"),
        ("OUTBOX_RELAY_SERVICE_PORT", "8085"),
        ("OUTBOX_RELAY_SERVICE_PORT_HTTP", "8085"),
        ("OUTBOX_RELAY_PORT", "tcp://10.0.0.1:8085"),
        ("OUTBOX_RELAY_PORT_8085_TCP_ADDR", "10.0.0.1"),
    ];
    assert!(run(&["migrate", "print"], &links).status.success());
    assert_eq!(run(&["migrate", "print"], &links[1..]).status.code(), Some(2), "without such a service they are typos");
}

#[test]
fn an_empty_list_of_streams_is_neither_the_default_nor_none() {
    let folder = tempfile::tempdir().unwrap();
    let refused = run(&["migrate", "print"], &[("OUTBOX_NATS_STREAMS", " ")]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(transcript(&refused).contains("OUTBOX_NATS_STREAMS: expected none or a value"), "{}", transcript(&refused));
    assert!(run(&["migrate", "print"], &[("OUTBOX_NATS_STREAMS", "none")]).status.success());
    for (text, code) in [("\"\"", 2), ("[]", 2), ("\"none\"", 0), ("[\"none\"]", 0)] {
        let file = folder.path().join("relay.toml");
        std::fs::write(&file, format!("[nats]\nstreams = {text}\n")).unwrap();
        let output = run(&["migrate", "print"], &[("OUTBOX_CONFIG", file.to_str().unwrap())]);
        assert_eq!(output.status.code(), Some(code), "{text}: {}", transcript(&output));
        assert!(code == 0 || transcript(&output).contains("or none"), "{}", transcript(&output));
    }
}

/// One row for each rule of `docs/configuration.md`, and cousins that are fine.
#[test]
fn settings_that_contradict_each_other_are_refused_or_told_with_both_names() {
    const NATS: &[(&str, &str)] = &[];
    const REDIS: &[(&str, &str)] = &[("EVENT_BUS", "redis-streams")];
    let refused: &[(Settings, Settings)] = &[
        (NATS, &[("OUTBOX_BATCH_SIZE", "1000"), ("OUTBOX_BATCH_SIZE_MAX", "10")]),
        (NATS, &[("OUTBOX_RETRY_BACKOFF", "10m"), ("OUTBOX_RETRY_BACKOFF_MAX", "1m")]),
        (NATS, &[("OUTBOX_NATS_CERT_FILE", "/cert.pem"), ("OUTBOX_NATS_KEY_FILE", "")]),
        (NATS, &[("OUTBOX_NATS_KEY_FILE", "/key.pem"), ("OUTBOX_NATS_CERT_FILE", "")]),
        (NATS, &[("OUTBOX_NATS_JETSTREAM_DOMAIN", "hub"), ("OUTBOX_NATS_JETSTREAM_API_PREFIX", "$JS.hub.API")]),
        (NATS, &[("OUTBOX_NATS_DUPLICATE_WINDOW", "2h"), ("OUTBOX_NATS_STREAM_MAX_AGE", "1h")]),
        (NATS, &[("OUTBOX_NATS_STREAM_MAX_AGE", "1m"), ("OUTBOX_NATS_DUPLICATE_WINDOW", "")]),
        (REDIS, &[("OUTBOX_REDIS_CERT_FILE", "/cert.pem"), ("OUTBOX_REDIS_KEY_FILE", "")]),
    ];
    for (bus, settings) in refused {
        let output = run(&["migrate", "print"], &[*bus, *settings].concat());
        let text = transcript(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(settings.iter().all(|(name, _)| text.contains(name)) && text.contains("expected"), "{text}");
    }
    let told: &[(Settings, Settings)] = &[
        (NATS, &[("OUTBOX_DRAIN_TIMEOUT", "1s"), ("OUTBOX_PUBLISH_TIMEOUT", "5s")]),
        (NATS, &[("OUTBOX_PUBLISH_TIMEOUT", "30s"), ("OUTBOX_DRAIN_TIMEOUT", "")]),
        (NATS, &[("OUTBOX_HTTP_HOSTS", "outbox.example.com"), ("OUTBOX_ADMIN_TOKEN", "")]),
        (NATS, &[("OTEL_TRACES_SAMPLER_ARG", "0.1"), ("OTEL_TRACES_SAMPLER", "always_on")]),
        (NATS, &[("OUTBOX_NATS_STREAMS", "A=orders,B=events"), ("OUTBOX_TOPIC_PREFIXES", "events.")]),
        (
            REDIS,
            &[
                ("OUTBOX_REDIS_WAIT_TIMEOUT", "4s"),
                ("OUTBOX_PUBLISH_TIMEOUT", "5s"),
                ("OUTBOX_REDIS_WAIT_REPLICAS", "1"),
            ],
        ),
        (REDIS, &[("OUTBOX_REDIS_WAIT_TIMEOUT", "2s"), ("OUTBOX_REDIS_WAIT_REPLICAS", "0")]),
    ];
    for (bus, settings) in told {
        let mut relay = Relay::start(&[&[("OUTBOX_ENABLED", "false")], *bus, *settings].concat());
        relay.wait_for_log("idle");
        relay.signal(Signal::SIGTERM);
        assert_eq!(relay.exit_code(), Some(0));
        let log = relay.everything_printed();
        let line = log.lines().find(|line| line.contains("settings contradict each other")).expect(&log);
        assert!(settings.iter().take(2).all(|(name, _)| line.contains(name)), "{line}");
    }
    let fine: &[(Settings, Settings)] = &[
        // Where only one is set, the other follows.
        (NATS, &[("OUTBOX_BATCH_SIZE", "1000")]),
        (NATS, &[("OUTBOX_BATCH_SIZE_MAX", "10")]),
        (NATS, &[("OUTBOX_BATCH_SIZE", "10"), ("OUTBOX_BATCH_SIZE_MAX", "10")]),
        (NATS, &[("OUTBOX_RETRY_BACKOFF_MAX", "500ms")]),
        (NATS, &[("OUTBOX_RETENTION", "1h"), ("OUTBOX_ON_PUBLISHED", "delete")]),
        (NATS, &[("OUTBOX_NATS_STREAM_MAX_AGE", "0"), ("OUTBOX_NATS_DUPLICATE_WINDOW", "10m")]),
        (NATS, &[("OUTBOX_NATS_STREAMS", "A=events"), ("OUTBOX_TOPIC_PREFIXES", "events.player")]),
        (NATS, &[("OUTBOX_NATS_STREAMS", "none"), ("OUTBOX_NATS_JETSTREAM_DOMAIN", "hub")]),
        // Settings of a bus that is not chosen.
        (REDIS, &[("OUTBOX_NATS_CERT_FILE", "/cert.pem")]),
        (NATS, &[("OUTBOX_REDIS_WAIT_REPLICAS", "1"), ("OUTBOX_REDIS_WAIT_TIMEOUT", "1m")]),
    ];
    for (bus, settings) in fine {
        let mut relay = Relay::start(&[&[("OUTBOX_ENABLED", "false")], *bus, *settings].concat());
        relay.wait_for_log("idle");
        relay.signal(Signal::SIGTERM);
        assert_eq!(relay.exit_code(), Some(0));
        let log = relay.everything_printed();
        assert!(!log.contains("settings contradict each other"), "{settings:?}: {log}");
    }
}
