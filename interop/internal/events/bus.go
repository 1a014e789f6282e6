package events

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/tracing"
)

const (
	ackWait    = 30 * time.Second
	deliveries = 5
	nakDelay   = 2 * time.Second
)

// streams are those that every service makes sure of when it starts, with the age of their messages.
var streams = map[string]time.Duration{
	"MATCHMAKING": 24 * time.Hour,
	"LEADERBOARD": time.Hour,
	"PLAYER":      72 * time.Hour,
	"PRESENCE":    15 * time.Minute,
}

// Bus is JetStream, with the system's streams in it.
type Bus struct {
	connection *nats.Conn
	jetstream  jetstream.JetStream
}

// Connect waits for the server, and creates or updates the streams. An update sets replicas and duplicate window back
// to the server's defaults, because they are not named here.
func Connect(ctx context.Context, url, service string) (*Bus, error) {
	connection, err := nats.Connect(url, nats.Name(service), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond))
	if err != nil {
		return nil, fmt.Errorf("nats: %w", err)
	}
	js, err := jetstream.New(connection)
	if err != nil {
		return nil, fmt.Errorf("jetstream: %w", err)
	}
	for name, age := range streams {
		topic := "events." + strings.ToLower(name)
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name:      name,
			Subjects:  []string{topic, topic + ".>"},
			Retention: jetstream.LimitsPolicy,
			Storage:   jetstream.FileStorage,
			MaxAge:    age,
		})
		if err != nil {
			return nil, fmt.Errorf("stream %s: %w", name, err)
		}
	}
	return &Bus{connection, js}, nil
}

// Close ends the connection after what is on its way.
func (b *Bus) Close() {
	_ = b.connection.Drain()
}

// Publish sends an event, with the span of this very publish in its carrier and without any header, and waits until a
// stream has stored it.
func (b *Bus) Publish(ctx context.Context, topic string, event Event) error {
	ctx, span := tracing.Tracer().Start(ctx, "events.publish "+topic,
		trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(
			attribute.String("messaging.system", "nats"),
			attribute.String("messaging.destination.name", topic),
			attribute.String("messaging.event.type", event.Type),
		))
	defer span.End()

	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	event.Carrier = carrier
	body, err := json.Marshal(event)
	if err == nil {
		_, err = b.jetstream.Publish(ctx, Subject(topic, event.Type), body)
	}
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	return err
}

// Delivery is a message as a handler sees it.
type Delivery struct {
	Subject    string
	Event      Event
	Headers    nats.Header
	Deliveries uint64
	// Undecodable says that the body is no event; such a message is ended, and never comes again.
	Undecodable bool
}

// Consume hands out what comes on a topic until the context ends: acknowledged after the handler, delivered again when
// it fails.
func (b *Bus) Consume(ctx context.Context, service, topic string, workers int, handle func(context.Context, Delivery) error) error {
	stream := strings.ToUpper(topic[strings.LastIndex(topic, ".")+1:])
	consumer, err := b.jetstream.CreateOrUpdateConsumer(ctx, stream, jetstream.ConsumerConfig{
		Durable:       durable(service, stream),
		FilterSubject: topic + ".>",
		DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       ackWait,
		MaxDeliver:    deliveries,
		MaxAckPending: 2 * workers,
	})
	if err != nil {
		return fmt.Errorf("consumer on %s: %w", stream, err)
	}
	slots := make(chan struct{}, workers)
	consuming, err := consumer.Consume(func(message jetstream.Msg) {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			deliver(ctx, topic, message, handle)
		}()
	}, jetstream.PullMaxMessages(2*workers))
	if err != nil {
		return fmt.Errorf("consume %s: %w", topic, err)
	}
	<-ctx.Done()
	consuming.Stop()
	// What is being handled ends, and its span with it.
	for range workers {
		slots <- struct{}{}
	}
	return nil
}

func deliver(ctx context.Context, topic string, message jetstream.Msg, handle func(context.Context, Delivery) error) {
	delivery := Delivery{Subject: message.Subject(), Headers: message.Headers()}
	if metadata, err := message.Metadata(); err == nil {
		delivery.Deliveries = metadata.NumDelivered
	}
	if err := json.Unmarshal(message.Data(), &delivery.Event); err != nil || delivery.Event.ID == "" {
		delivery.Undecodable = true
		_ = handle(ctx, delivery)
		_ = message.Term()
		return
	}
	ctx = otel.GetTextMapPropagator().Extract(ctx, propagation.MapCarrier(delivery.Event.Carrier))
	ctx, span := tracing.Tracer().Start(ctx, "events.consume "+topic, trace.WithSpanKind(trace.SpanKindConsumer))
	defer span.End()
	if err := handle(ctx, delivery); err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
		_ = message.NakWithDelay(nakDelay)
		return
	}
	_ = message.Ack()
}

func durable(service, stream string) string {
	replaced := strings.NewReplacer(".", "_", "*", "_", ">", "_", " ", "_")
	return replaced.Replace(service + "-" + strings.ToLower(stream))
}
