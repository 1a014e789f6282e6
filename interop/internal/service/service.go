// Package service is what every process of the system has: a log, endpoints, traces and a clean end.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/signal"
	"syscall"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/settings"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/tracing"
)

// Run sets the process up, does the work until it ends or is asked to, and exports the last spans.
func Run(of settings.Settings, work func(context.Context, *zap.Logger) error) error {
	log, err := logger(of.Service)
	if err != nil {
		return err
	}
	defer func() { _ = log.Sync() }()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	shutdown, err := tracing.Start(ctx, of)
	if err != nil {
		return err
	}
	err = work(ctx, log)
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// A collector that is away takes nothing with it.
	_ = shutdown(last)
	return err
}

// logger writes JSON lines to standard error; standard output is for what a command prints.
func logger(service string) (*zap.Logger, error) {
	config := zap.NewProductionConfig()
	config.EncoderConfig.EncodeTime = zapcore.ISO8601TimeEncoder
	config.DisableStacktrace = true
	config.DisableCaller = true
	config.Sampling = nil
	config.InitialFields = map[string]any{"service": service}
	log, err := config.Build()
	if err != nil {
		return nil, fmt.Errorf("log: %w", err)
	}
	return log, nil
}

// Serve answers /healthz and /metrics until the context ends.
func Serve(ctx context.Context, of settings.Settings, log *zap.Logger, metrics http.Handler) error {
	listener, err := net.Listen("tcp4", fmt.Sprintf(":%d", of.HTTPPort))
	if err != nil {
		return fmt.Errorf("endpoints: %w", err)
	}
	paths := http.NewServeMux()
	paths.Handle("/metrics", metrics)
	paths.HandleFunc("/healthz", func(answer http.ResponseWriter, _ *http.Request) {
		answer.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(answer).Encode(struct {
			Status  string `json:"status"`
			Service string `json:"service"`
		}{"ok", of.Service})
	})
	server := &http.Server{Handler: paths, ReadHeaderTimeout: 5 * time.Second}
	// With HTTP_PORT=0 whoever started it has to be told.
	log.Info("endpoints served", zap.Stringer("address", listener.Addr()))
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("endpoints ended", zap.Error(err))
		}
	}()
	return nil
}
