package events

import (
	"encoding/json"
	"testing"
	"time"
)

func TestTheBodyIsCompactOrderedAndEscaped(t *testing.T) {
	event := Event{
		ID:        "0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f",
		Type:      "PlayerRegistered",
		Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC),
		Payload:   json.RawMessage(`{"username": "<Zoë & co>", "n": 12345678901234567890.1230}`),
	}
	body, err := json.Marshal(event)
	if err != nil {
		t.Fatal(err)
	}
	expected := `{"id":"0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f","type":"PlayerRegistered","timestamp":"2026-01-02T03:04:05.678Z",` +
		`"payload":{"username":"\u003cZoë \u0026 co\u003e","n":12345678901234567890.1230}}`
	if string(body) != expected {
		t.Errorf("expected %s\ngot      %s", expected, body)
	}
}

func TestADurableNameHasNoCharacterThatNATSRefuses(t *testing.T) {
	if name := durable("match maker.v2", "PLAYER"); name != "match_maker_v2-player" {
		t.Errorf("got %s", name)
	}
}

func TestAnEventWithoutATypeGoesToItsTopic(t *testing.T) {
	if Subject("events.player", "") != "events.player" || Subject("events.player", "x") != "events.player.x" {
		t.Error("expected the type to be the last token, if there is one")
	}
}
