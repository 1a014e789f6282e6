// Package settings reads the environment as the earlier system does: what is unset or cannot be read is the default,
// without a word.
package settings

import (
	"os"
	"strconv"
	"time"
)

// Settings is everything that one of its processes is told.
type Settings struct {
	Service          string
	Environment      string
	Version          string
	HTTPPort         int
	PostgresDSN      string
	NATSURL          string
	EventWorkers     int
	AutoMigrate      bool
	OutboxEnabled    bool
	BatchSize        int
	PollInterval     time.Duration
	Workers          int
	MaxAttempts      int
	TracingEnabled   bool
	CollectorAddress string
	Sampler          string
	SamplerRatio     float64
}

// Load reads the settings of a service. OTEL_SERVICE_NAME is the service's own name unless it is set.
func Load(service string) Settings {
	return Settings{
		Service:      text("OTEL_SERVICE_NAME", service),
		Environment:  text("APP_ENV", "development"),
		Version:      text("SERVICE_VERSION", "dev"),
		HTTPPort:     number("HTTP_PORT", 8085),
		PostgresDSN:  text("POSTGRES_DSN", "host=localhost user=gamemesh dbname=gamemesh port=5432 sslmode=disable"),
		NATSURL:      text("NATS_URL", "nats://localhost:4222"),
		EventWorkers: positive("EVENT_WORKERS", 8),
		AutoMigrate:  flag("AUTO_MIGRATE", true),

		OutboxEnabled: flag("OUTBOX_ENABLED", true),
		BatchSize:     positive("OUTBOX_BATCH_SIZE", 100),
		PollInterval:  interval("OUTBOX_POLL_INTERVAL", time.Second),
		Workers:       positive("OUTBOX_WORKERS", 4),
		MaxAttempts:   number("OUTBOX_MAX_ATTEMPTS", 0),

		TracingEnabled:   flag("OTEL_ENABLED", true),
		CollectorAddress: text("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"),
		Sampler:          text("OTEL_TRACES_SAMPLER", "parentbased_always_on"),
		SamplerRatio:     ratio("OTEL_TRACES_SAMPLER_ARG", 1),
	}
}

func text(name, fallback string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return fallback
}

func number(name string, fallback int) int {
	if value, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return value
	}
	return fallback
}

func positive(name string, fallback int) int {
	if value := number(name, fallback); value > 0 {
		return value
	}
	return fallback
}

func flag(name string, fallback bool) bool {
	if value, err := strconv.ParseBool(os.Getenv(name)); err == nil {
		return value
	}
	return fallback
}

func interval(name string, fallback time.Duration) time.Duration {
	if value, err := time.ParseDuration(os.Getenv(name)); err == nil && value > 0 {
		return value
	}
	return fallback
}

func ratio(name string, fallback float64) float64 {
	if value, err := strconv.ParseFloat(os.Getenv(name), 64); err == nil {
		return value
	}
	return fallback
}
