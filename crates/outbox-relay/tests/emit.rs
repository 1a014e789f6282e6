use crate::program::{Relay, run, run_with_input, sqlite, transcript};

#[test]
fn what_is_emitted_is_published_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let environment = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout")];
    assert!(run(&["migrate", "up"], &environment).status.success());

    let payload = r#"{"b": 1e400, "a": [ ], "b":2}"#;
    let one = run(&["emit", "--topic", "events.player", "--type", "one", "--payload", payload], &environment);
    let id = String::from_utf8(one.stdout.clone()).unwrap();
    assert!(one.status.success() && id.trim_end().len() == 36, "{}", transcript(&one));
    let lines = "{\"topic\":\"events.player\",\"event_type\":\"two\",\"payload\":2}\n\n\
                 {\"topic\":\"events.player\",\"event_type\":\"three\",\"payload\":3,\"key\":\"k\"}";
    let several = run_with_input(&["emit", "--file", "-", "--print-ids"], &environment, lines);
    assert_eq!(String::from_utf8_lossy(&several.stdout).lines().count(), 2, "{}", transcript(&several));

    let relay = Relay::start(&environment);
    let line = relay.wait_for_stdout("events.player.one");
    assert!(line.contains(id.trim_end()) && line.contains(payload), "{line}");
    relay.wait_for_stdout("events.player.two");
    relay.wait_for_stdout("events.player.three");
}

#[test]
fn a_wrong_line_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let environment = [("DATABASE_URL", url.as_str()), ("EVENT_BUS", "stdout")];
    assert!(run(&["migrate", "up"], &environment).status.success());

    // More than one batch, so that the first one has reached the database when the wrong line is found.
    let mut lines = "{\"topic\":\"events.player\",\"event_type\":\"lost\",\"payload\":1}\n".repeat(700);
    lines.push_str("{\"topic\":\"events.player\"}\n");
    let output = run_with_input(&["emit", "--file", "-"], &environment, &lines);
    insta::assert_snapshot!(transcript(&output));

    let good = run(&["emit", "--topic", "events.player", "--type", "good", "--payload", "1"], &environment);
    assert!(good.status.success(), "{}", transcript(&good));
    let relay = Relay::start(&environment);
    let first = relay.wait_for_stdout("subject");
    assert!(first.contains("events.player.good"), "{first}");
}

#[test]
fn an_event_that_no_bus_could_carry_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let url = sqlite(folder.path());
    let environment = [("DATABASE_URL", url.as_str())];
    assert!(run(&["migrate", "up"], &environment).status.success());
    for (topic, payload) in [("events.*", "1"), ("events.player", "{"), ("_INBOX.x", "1")] {
        let output = run(&["emit", "--topic", topic, "--payload", payload], &environment);
        assert_eq!(output.status.code(), Some(1), "{}", transcript(&output));
        assert!(output.stdout.is_empty());
    }
}
