use crate::program::{run, transcript};

const CANARY: &str = "c4n4ry-hunter2";

/// Wherever a password can be set, and whatever is wrong with it, it is never printed.
#[test]
fn a_password_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let unclosed = folder.path().join("unclosed.toml");
    std::fs::write(&unclosed, format!("[nats]\nurl = \"nats://relay:{CANARY}@nats:4222\n")).unwrap();
    let wrong_type = folder.path().join("wrong_type.toml");
    std::fs::write(&wrong_type, format!("[database]\nurl = {{ password = \"{CANARY}\" }}\n")).unwrap();
    let secret_file = folder.path().join("dsn");
    std::fs::write(&secret_file, format!("mysql://relay:{CANARY}@db/app\n")).unwrap();
    let values = [
        ("POSTGRES_DSN", format!("host=127.0.0.1 port=1 user=relay password={CANARY} connect_timeout=1")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 port=1 user=relay password={CANARY} sslmode=maybe")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 password={CANARY} port=many")),
        ("POSTGRES_DSN", format!("password='{CANARY}")),
        ("POSTGRES_DSN", format!("host=127.0.0.1 {CANARY}")),
        ("POSTGRES_DSN_FILE", CANARY.to_owned()),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1:1/app?connect_timeout=1")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1:port/app")),
        ("DATABASE_URL", format!("postgres://relay:{CANARY}@127.0.0.1/app?sslmode={CANARY}")),
        ("DATABASE_URL", format!("mysql://relay:{CANARY}@db/app")),
        ("DATABASE_URL", format!("relay:{CANARY}@db/app")),
        ("DATABASE_URL_FILE", secret_file.display().to_string()),
        ("OUTBOX_CONFIG", unclosed.display().to_string()),
        ("OUTBOX_CONFIG", wrong_type.display().to_string()),
    ];
    for (variable, value) in &values {
        let environment = [(*variable, value.as_str()), ("LOG_LEVEL", "trace")];
        let text = transcript(&run(&["migrate", "status"], &environment));
        assert!(!text.starts_with("exit code: 0"), "{variable}: {text}");
        assert!(!text.contains(CANARY), "{variable}: {text}");
    }
}

#[test]
fn a_password_of_the_bus_is_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let database = crate::program::sqlite(folder.path());
    assert!(run(&["migrate", "up"], &[("DATABASE_URL", &database)]).status.success());
    for (bus, variable, value) in [
        ("nats", "NATS_URL", format!("nats://relay:{CANARY}@127.0.0.1:port")),
        ("nats", "NATS_URL", format!("http://relay:{CANARY}@127.0.0.1")),
        ("redis", "REDIS_URL", format!("http://relay:{CANARY}@127.0.0.1")),
        ("redis", "REDIS_URL", format!("redis://relay:{CANARY}@127.0.0.1:port")),
    ] {
        let environment = [
            ("DATABASE_URL", database.as_str()),
            ("EVENT_BUS", bus),
            (variable, &value),
            ("HTTP_PORT", "0"),
            ("LOG_LEVEL", "trace"),
        ];
        let output = run(&["run"], &environment);
        let text = transcript(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains(variable) && !text.contains(CANARY), "{text}");
    }
}
