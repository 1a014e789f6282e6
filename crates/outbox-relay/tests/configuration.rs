use std::path::{Path, PathBuf};

use crate::program::{command, run, transcript};

/// Lists the sample files of a folder.
fn samples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

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
