package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"sync"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/events"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/service"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/settings"
)

// seen is what a consumer prints of a message.
type seen struct {
	Subject    string            `json:"subject"`
	ID         string            `json:"id"`
	Type       string            `json:"type"`
	Timestamp  string            `json:"timestamp"`
	Payload    json.RawMessage   `json:"payload,omitempty"`
	Carrier    map[string]string `json:"carrier"`
	TraceID    string            `json:"trace_id"`
	SpanID     string            `json:"span_id"`
	ParentID   string            `json:"parent_span_id"`
	Headers    nats.Header       `json:"headers"`
	Deliveries uint64            `json:"deliveries"`
	Player     *events.Player    `json:"player,omitempty"`
	Error      string            `json:"error,omitempty"`
	Terminated bool              `json:"terminated,omitempty"`
}

func consume(arguments []string) error {
	flags := flag.NewFlagSet("consume", flag.ExitOnError)
	name := flags.String("service", "matchmaking", "the service that consumes")
	topic := flags.String("topic", "events.player", "the topic")
	count := flags.Int("count", 0, "end after so many messages; 0 is until it is stopped")
	failFirst := flags.Bool("fail-first", false, "fail at the first delivery of each")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	of := settings.Load(*name)
	return service.Run(of, func(ctx context.Context, log *zap.Logger) error {
		bus, err := events.Connect(ctx, of.NATSURL, of.Service)
		if err != nil {
			return err
		}
		defer bus.Close()
		ctx, enough := context.WithCancel(ctx)
		defer enough()
		var one sync.Mutex
		lines, handled := json.NewEncoder(os.Stdout), 0
		log.Info("consumer running", zap.String("topic", *topic))
		return bus.Consume(ctx, *name, *topic, of.EventWorkers, func(ctx context.Context, delivery events.Delivery) error {
			line, failure := look(ctx, delivery, *failFirst)
			one.Lock()
			defer one.Unlock()
			if err := lines.Encode(line); err != nil {
				return err
			}
			handled++
			if handled == *count {
				enough()
			}
			return failure
		})
	})
}

// look does what a handler does, and says what it saw.
func look(ctx context.Context, delivery events.Delivery, failFirst bool) (seen, error) {
	event := delivery.Event
	span := trace.SpanFromContext(ctx)
	line := seen{
		Subject:    delivery.Subject,
		ID:         event.ID,
		Type:       event.Type,
		Timestamp:  event.Timestamp.Format("2006-01-02T15:04:05.999999999Z07:00"),
		Payload:    event.Payload,
		Carrier:    event.Carrier,
		TraceID:    span.SpanContext().TraceID().String(),
		SpanID:     span.SpanContext().SpanID().String(),
		Headers:    delivery.Headers,
		Deliveries: delivery.Deliveries,
		Terminated: delivery.Undecodable,
	}
	// The SDK's spans know their parent; those of a process without tracing do not.
	if recorded, ok := span.(interface{ Parent() trace.SpanContext }); ok {
		line.ParentID = recorded.Parent().SpanID().String()
	}
	if delivery.Undecodable {
		return line, nil
	}
	player, err := events.PlayerOf(event)
	if err == nil {
		line.Player = &player
		if failFirst && delivery.Deliveries == 1 {
			err = errors.New("asked to fail at the first delivery")
		}
	}
	if err != nil {
		line.Error = err.Error()
	}
	return line, err
}
