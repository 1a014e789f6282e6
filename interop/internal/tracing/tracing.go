// Package tracing sets OpenTelemetry up: W3C trace context and baggage always, spans to a collector when enabled.
package tracing

import (
	"context"
	"fmt"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/settings"
)

const scope = "github.com/alpnuhoglu/gamemesh"

// Tracer returns the tracer of the system's scope.
func Tracer() trace.Tracer {
	return otel.Tracer(scope)
}

// Start sets the process up and returns what exports the last spans.
func Start(ctx context.Context, of settings.Settings) (func(context.Context) error, error) {
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	if !of.TracingEnabled {
		return func(context.Context) error { return nil }, nil
	}
	exporter, err := otlptracegrpc.New(ctx, otlptracegrpc.WithInsecure(), otlptracegrpc.WithEndpoint(of.CollectorAddress))
	if err != nil {
		return nil, fmt.Errorf("exporter: %w", err)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithSampler(sampler(of.Sampler, of.SamplerRatio)),
		sdk.WithBatcher(exporter),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", of.Service),
			attribute.String("service.version", of.Version),
			attribute.String("deployment.environment", of.Environment),
		)),
	)
	otel.SetTracerProvider(provider)
	// What no collector takes is nobody's trouble here.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {}))
	return provider.Shutdown, nil
}

func sampler(name string, ratio float64) sdk.Sampler {
	switch name {
	case "always_on":
		return sdk.AlwaysSample()
	case "always_off":
		return sdk.NeverSample()
	case "traceidratio":
		return sdk.TraceIDRatioBased(ratio)
	case "parentbased_traceidratio":
		return sdk.ParentBased(sdk.TraceIDRatioBased(ratio))
	default:
		return sdk.ParentBased(sdk.AlwaysSample())
	}
}
