use crate::program::{run, sqlite, transcript};

fn stdout(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = run(arguments, environment);
    assert!(output.status.success(), "{}", transcript(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn sql_is_printed_without_a_database() {
    let all = stdout(&["migrate", "print"], &[]);
    assert!(all.contains("0003_create_outbox_events.up.sql") && all.contains("CREATE TABLE"), "{all}");
    assert!(all.contains("0004_outbox_dead_letter.up.sql") && all.contains("idx_outbox_failed"), "{all}");
    let one = stdout(&["migrate", "print", "4", "--down"], &[]);
    assert!(one.contains("0004_outbox_dead_letter.down.sql") && !one.contains("0003"), "{one}");
    assert_ne!(stdout(&["migrate", "print", "--store", "sqlite"], &[]), all);
}

#[test]
fn a_migration_that_does_not_exist_is_a_usage_error() {
    let output = run(&["migrate", "print", "99"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no migration 99: expected one of 3, 4"));
}

#[test]
fn a_schema_goes_up_and_down() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let database = [("DATABASE_URL", url.as_str())];
    assert_eq!(run(&["migrate", "status"], &database).status.code(), Some(3), "there is no such file yet");
    let up = stdout(&["migrate", "up"], &database);
    assert!(up.starts_with("applied: 0003 create_outbox_events\n"), "{up}");
    assert_eq!(stdout(&["migrate", "up"], &database), "nothing to do\n");
    let status = stdout(&["migrate", "status"], &database);
    assert!(status.contains("applied") && !status.contains("missing"), "{status}");
    let down = stdout(&["migrate", "down", "--to", "3"], &database);
    assert!(down.ends_with("taken back: 0004 outbox_dead_letter\n"), "{down}");
    assert!(stdout(&["migrate", "status"], &database).contains("missing"));
}

#[test]
fn a_relay_on_an_old_schema_says_so_and_exits_with_3() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let environment = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout"), ("HTTP_PORT", "0")];
    stdout(&["migrate", "up"], &environment);
    stdout(&["migrate", "down", "--to", "3"], &environment);
    let output = run(&["run"], &environment);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("outbox-relay migrate up"), "{}", transcript(&output));
}
