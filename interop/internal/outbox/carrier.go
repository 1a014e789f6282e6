package outbox

import (
	"encoding/json"

	"go.opentelemetry.io/otel/propagation"
)

func encode(carrier propagation.MapCarrier) JSON {
	if len(carrier) == 0 {
		return "{}"
	}
	// A map of strings is always JSON.
	text, _ := json.Marshal(carrier)
	return JSON(text)
}

// Decode reads a row's carrier; what is no object of strings carries nothing.
func Decode(carrier JSON) propagation.MapCarrier {
	decoded := propagation.MapCarrier{}
	if json.Unmarshal([]byte(carrier), &decoded) != nil {
		return propagation.MapCarrier{}
	}
	return decoded
}
