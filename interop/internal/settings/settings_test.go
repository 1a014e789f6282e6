package settings

import (
	"testing"
	"time"
)

func TestWhatCannotBeReadIsTheDefault(t *testing.T) {
	for name, value := range map[string]string{
		"OUTBOX_BATCH_SIZE":    "-5",
		"OUTBOX_WORKERS":       "many",
		"OUTBOX_POLL_INTERVAL": "0s",
		"OUTBOX_ENABLED":       "yes",
		"OTEL_ENABLED":         "F",
		"OUTBOX_MAX_ATTEMPTS":  "-1",
	} {
		t.Setenv(name, value)
	}
	read := Load("outbox-relay")
	if read.BatchSize != 100 || read.Workers != 4 || read.PollInterval != time.Second || !read.OutboxEnabled {
		t.Errorf("expected the defaults, got %+v", read)
	}
	if read.TracingEnabled {
		t.Error("expected F to be read as false")
	}
	if read.MaxAttempts != -1 {
		t.Errorf("expected -1, which never dead-letters, got %d", read.MaxAttempts)
	}
}
