// Package metrics has the names that the earlier relay's dashboards and alerts look for.
package metrics

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics is what the relay counts.
type Metrics struct {
	registry *prometheus.Registry

	Pending      prometheus.Gauge
	Published    prometheus.Counter
	Failures     prometheus.Counter
	DeadLettered prometheus.Counter
	// Duration has one observation for each row.
	Duration prometheus.Histogram
	// EventsPublished and EventsFailed are those that every service counts.
	EventsPublished *prometheus.CounterVec
	EventsFailed    *prometheus.CounterVec
}

// New registers them, with the label of the service and the collectors of the process.
func New(service string) *Metrics {
	registry := prometheus.NewRegistry()
	label := prometheus.Labels{"service": service}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: label})
	}
	vector := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: label}, labels)
	}
	metrics := &Metrics{
		registry: registry,
		Pending: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "gamemesh_outbox_events_pending", Help: "Events that wait.", ConstLabels: label,
		}),
		Published:    counter("gamemesh_outbox_events_published_total", "Events that the bus acknowledged."),
		Failures:     counter("gamemesh_outbox_publish_failures_total", "Attempts that failed."),
		DeadLettered: counter("gamemesh_outbox_events_dead_lettered_total", "Events that were given up."),
		Duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "gamemesh_outbox_publish_duration_seconds", Help: "How long a publish took.", ConstLabels: label,
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}),
		EventsPublished: vector("gamemesh_events_published_total", "Events sent, by topic and type.", "topic", "type"),
		EventsFailed:    vector("gamemesh_events_failed_total", "Events that failed, by topic and stage.", "topic", "stage"),
	}
	registry.MustRegister(metrics.Pending, metrics.Published, metrics.Failures, metrics.DeadLettered, metrics.Duration,
		metrics.EventsPublished, metrics.EventsFailed)
	labelled := prometheus.WrapRegistererWith(label, registry)
	labelled.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return metrics
}

// Handler serves the plain text format, whatever else is asked for.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
