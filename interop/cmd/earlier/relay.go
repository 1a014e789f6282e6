package main

import (
	"context"

	"go.uber.org/zap"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/events"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/metrics"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/outbox"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/relay"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/service"
	"github.com/gamemesh/gamemesh-outbox/interop/internal/settings"
)

func migrate([]string) error {
	db, err := outbox.Open(settings.Load("player").PostgresDSN)
	if err != nil {
		return err
	}
	return outbox.Migrate(db)
}

func relayRows([]string) error {
	of := settings.Load("outbox-relay")
	return service.Run(of, func(ctx context.Context, log *zap.Logger) error {
		counted := metrics.New("outbox-relay")
		if err := service.Serve(ctx, of, log, counted.Handler()); err != nil {
			return err
		}
		if !of.OutboxEnabled {
			log.Info("relay disabled")
			<-ctx.Done()
			return nil
		}
		db, err := outbox.Open(of.PostgresDSN)
		if err != nil {
			return err
		}
		bus, err := events.Connect(ctx, of.NATSURL, of.Service)
		if err != nil {
			return err
		}
		defer bus.Close()
		(&relay.Relay{DB: db, Bus: bus, Metrics: counted, Log: log, Settings: of}).Run(ctx)
		return nil
	})
}
