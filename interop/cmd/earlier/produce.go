package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"gorm.io/gorm"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/events"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/outbox"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/service"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/settings"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/tracing"
)

// load is what a producer is to do.
type load struct {
	count       int
	rate        int
	transaction int
	poisonEvery int
	topic       string
	eventType   string
	quiet       bool
}

// done is the last line that a producer prints.
type done struct {
	Inserted int `json:"inserted"`
	Failed   int `json:"failed"`
	// LongestMS is how long the longest transaction took, from its begin to its commit.
	LongestMS int64 `json:"longest_ms"`
}

func produce(arguments []string) error {
	var of load
	flags := flag.NewFlagSet("produce", flag.ExitOnError)
	flags.IntVar(&of.count, "count", 0, "how many events; 0 is until it is stopped")
	flags.IntVar(&of.rate, "rate", 0, "transactions a second; 0 is as many as go")
	flags.IntVar(&of.transaction, "transaction", 1, "events in one transaction")
	flags.IntVar(&of.poisonEvery, "poison-every", 0, "every so manyeth event has no topic and no type; 0 is none")
	flags.StringVar(&of.topic, "topic", "events.player", "the topic")
	flags.StringVar(&of.eventType, "type", "PlayerRegistered", "the event type")
	flags.BoolVar(&of.quiet, "quiet", false, "print the last line only")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	settings := settings.Load("player")
	return service.Run(settings, func(ctx context.Context, log *zap.Logger) error {
		db, err := outbox.Open(settings.PostgresDSN)
		if err != nil {
			return err
		}
		if settings.AutoMigrate {
			if err := outbox.Migrate(db); err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
		}
		return of.run(ctx, db, log)
	})
}

func (l load) run(ctx context.Context, db *gorm.DB, log *zap.Logger) error {
	var paced <-chan time.Time
	if l.rate > 0 {
		ticker := time.NewTicker(time.Second / time.Duration(l.rate))
		defer ticker.Stop()
		paced = ticker.C
	}
	lines := json.NewEncoder(os.Stdout)
	var result done
	for made := 0; l.count == 0 || made < l.count; {
		if paced != nil {
			select {
			case <-ctx.Done():
			case <-paced:
			}
		}
		if ctx.Err() != nil {
			break
		}
		var rows []outbox.Row
		var spans []trace.SpanContext
		for len(rows) < l.transaction && (l.count == 0 || made < l.count) {
			made++
			row, span := l.request(ctx, made)
			rows, spans = append(rows, row), append(spans, span)
		}
		began := time.Now()
		err := db.WithContext(context.WithoutCancel(ctx)).Transaction(func(tx *gorm.DB) error {
			return outbox.Insert(tx, rows)
		})
		result.LongestMS = max(result.LongestMS, time.Since(began).Milliseconds())
		if err != nil {
			log.Error("insert failed", zap.Error(err))
			result.Failed += len(rows)
			continue
		}
		result.Inserted += len(rows)
		for index, row := range rows {
			if !l.quiet {
				print := map[string]string{"id": row.ID, "topic": row.Topic, "trace_id": spans[index].TraceID().String()}
				if err := lines.Encode(print); err != nil {
					return err
				}
			}
		}
	}
	return lines.Encode(result)
}

// request is one request of a player: a span of its own, in which an event is made.
func (l load) request(ctx context.Context, number int) (outbox.Row, trace.SpanContext) {
	ctx, span := tracing.Tracer().Start(ctx, "POST /api/v1/players", trace.WithSpanKind(trace.SpanKindServer))
	defer span.End()
	topic, eventType := l.topic, l.eventType
	if l.poisonEvery > 0 && number%l.poisonEvery == 0 {
		topic, eventType = "", ""
	}
	name := fmt.Sprintf("player-%d", number)
	player := events.Player{PlayerID: uuid.NewString(), Username: name, Email: strings.ToUpper(name) + "@example.com"}
	// Strings are always JSON.
	payload, _ := json.Marshal(player)
	return outbox.New(ctx, topic, eventType, payload), span.SpanContext()
}
