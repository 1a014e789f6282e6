// Package relay is the earlier relay: one transaction for each batch, one connection, several publishes at a time.
package relay

import (
	"context"
	"encoding/json"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"gorm.io/gorm"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/events"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/metrics"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/outbox"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/settings"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/tracing"
)

// Relay moves rows to the bus.
type Relay struct {
	DB       *gorm.DB
	Bus      *events.Bus
	Metrics  *metrics.Metrics
	Log      *zap.Logger
	Settings settings.Settings
}

// Run polls until the context ends, and finishes the batch that it then has.
func (r *Relay) Run(ctx context.Context) {
	r.Log.Info("relay running")
	ticker := time.NewTicker(r.Settings.PollInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			r.Log.Info("relay stopped")
			return
		case <-ticker.C:
			r.turn(context.WithoutCancel(ctx))
		}
	}
}

func (r *Relay) turn(ctx context.Context) {
	began := time.Now()
	if err := r.poll(ctx); err != nil {
		r.Log.Error("poll failed", zap.Error(err), zap.Duration("after", time.Since(began)))
	}
	pending, err := outbox.CountPending(r.DB.WithContext(ctx))
	if err != nil {
		r.Log.Error("count failed", zap.Error(err))
		return
	}
	r.Metrics.Pending.Set(float64(pending))
}

func (r *Relay) poll(ctx context.Context) error {
	ctx, span := tracing.Tracer().Start(ctx, "outbox.poll")
	defer span.End()
	return r.DB.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
		rows, err := outbox.Claim(tx, r.Settings.BatchSize)
		if err != nil || len(rows) == 0 {
			return err
		}
		published, failed := r.publish(ctx, rows)
		return r.settle(ctx, tx, published, failed)
	})
}

// publish sends a batch with as many publishes at a time as there are workers, and returns which ids were acknowledged
// and which were not.
func (r *Relay) publish(ctx context.Context, rows []outbox.Row) (published, failed []string) {
	outcomes := make([]error, len(rows))
	slots := make(chan struct{}, r.Settings.Workers)
	for index := range rows {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			outcomes[index] = r.publishOne(ctx, rows[index])
		}()
	}
	for range r.Settings.Workers {
		slots <- struct{}{}
	}
	for index, err := range outcomes {
		if err == nil {
			published = append(published, rows[index].ID)
		} else {
			failed = append(failed, rows[index].ID)
		}
	}
	return published, failed
}

func (r *Relay) publishOne(ctx context.Context, row outbox.Row) error {
	// The trace is the one of the request that inserted the row, not the poll's.
	ctx = trace.ContextWithSpanContext(ctx, trace.SpanContext{})
	ctx = otel.GetTextMapPropagator().Extract(ctx, outbox.Decode(row.Carrier))
	ctx, span := tracing.Tracer().Start(ctx, "outbox.publish "+row.Topic)
	defer span.End()
	began := time.Now()
	err := r.Bus.Publish(ctx, row.Topic, events.Event{
		ID:        row.ID,
		Type:      row.EventType,
		Timestamp: row.CreatedAt,
		Payload:   json.RawMessage(row.Payload),
	})
	r.Metrics.Duration.Observe(time.Since(began).Seconds())
	if err == nil {
		r.Metrics.EventsPublished.WithLabelValues(row.Topic, row.EventType).Inc()
		return nil
	}
	r.Metrics.EventsFailed.WithLabelValues(row.Topic, "publish").Inc()
	r.Log.Warn("publish failed",
		zap.String("event_id", row.ID), zap.String("event_type", row.EventType), zap.Int("attempt", row.AttemptCount+1),
		zap.String("trace_id", span.SpanContext().TraceID().String()),
		zap.String("span_id", span.SpanContext().SpanID().String()), zap.Error(err))
	return err
}

func (r *Relay) settle(ctx context.Context, tx *gorm.DB, published, failed []string) error {
	_, span := tracing.Tracer().Start(ctx, "outbox.mark_published")
	defer span.End()
	var deadLettered int64
	if len(published) > 0 {
		if err := outbox.MarkPublished(tx, published); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		var err error
		if deadLettered, err = outbox.Charge(tx, failed, r.Settings.MaxAttempts); err != nil {
			return err
		}
	}
	span.SetAttributes(
		attribute.Int("outbox.published", len(published)),
		attribute.Int("outbox.failed", len(failed)),
		attribute.Int64("outbox.dead_lettered", deadLettered),
	)
	r.Metrics.Published.Add(float64(len(published)))
	r.Metrics.Failures.Add(float64(len(failed)))
	r.Metrics.DeadLettered.Add(float64(deadLettered))
	return nil
}
