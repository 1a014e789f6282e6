// Package events is the message: how an event looks on the bus, and how it gets there and from there.
package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Event is the body of a message. The order of its fields and what encoding/json escapes are what consumers see.
type Event struct {
	ID        string            `json:"id"`
	Type      string            `json:"type"`
	Timestamp time.Time         `json:"timestamp"`
	Payload   json.RawMessage   `json:"payload"`
	Carrier   map[string]string `json:"carrier,omitempty"`
}

// Subject returns where an event of a topic goes.
func Subject(topic, eventType string) string {
	if eventType == "" {
		return topic
	}
	return topic + "." + eventType
}

// Player is the payload of both event types that are sent on events.player.
type Player struct {
	PlayerID string `json:"player_id"`
	Username string `json:"username"`
	Email    string `json:"email"`
}

// PlayerOf reads the payload of an event on events.player, as a consumer's handler does.
func PlayerOf(event Event) (Player, error) {
	var player Player
	switch event.Type {
	case "PlayerRegistered", "PlayerUpdated":
	default:
		return player, fmt.Errorf("expected PlayerRegistered or PlayerUpdated, got %q", event.Type)
	}
	if err := json.Unmarshal(event.Payload, &player); err != nil {
		return player, fmt.Errorf("payload of %s: %w", event.ID, err)
	}
	if player.PlayerID == "" {
		return player, errors.New("expected a player_id")
	}
	return player, nil
}
