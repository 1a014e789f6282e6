//go:build tools

// Package tools names the Prometheus that scripts/test builds: Debian's knows no Kubernetes, and the tests want to see it
// find pods.
package tools

import _ "github.com/prometheus/prometheus/cmd/prometheus"
