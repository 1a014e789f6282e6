package outbox

import (
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
)

// dry returns a database that says what it would send. pgx connects when it has something to send.
func dry(t *testing.T) *gorm.DB {
	t.Helper()
	config := postgres.Config{DSN: "host=nowhere.invalid", WithoutQuotingCheck: true}
	db, err := gorm.Open(postgres.New(config), &gorm.Config{DryRun: true, DisableAutomaticPing: true, SkipDefaultTransaction: true})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func TestTheStatementsAreThoseOfTheContract(t *testing.T) {
	db := dry(t)
	ids := []string{"0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f"}
	for expected, send := range map[string]func(*gorm.DB) *gorm.DB{
		`SELECT * FROM outbox_events WHERE status = 'PENDING' ORDER BY created_at ASC LIMIT 7 FOR UPDATE SKIP LOCKED`: func(tx *gorm.DB) *gorm.DB {
			return claiming(tx, 7).Find(&[]Row{})
		},
		`UPDATE outbox_events SET attempt_count=attempt_count + 1,` +
			`last_error=CASE WHEN attempt_count + 1 >= 3 THEN 'publish failed: max attempts exceeded' ELSE last_error END,` +
			`status=CASE WHEN attempt_count + 1 >= 3 THEN 'FAILED' ELSE status END` +
			` WHERE id IN ('0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f')`: func(tx *gorm.DB) *gorm.DB {
			return charging(tx, ids, 3)
		},
		`UPDATE outbox_events SET attempt_count=attempt_count + 1 WHERE id IN ('0192f0c1-2c5f-7cc3-98c4-dc0c0c07398f')`: func(tx *gorm.DB) *gorm.DB {
			return charging(tx, ids, 0)
		},
	} {
		if sent := db.ToSQL(send); sent != expected {
			t.Errorf("expected %s\ngot      %s", expected, sent)
		}
	}
}

func TestAnEmptyCarrierIsAnEmptyObjectAndABrokenOneCarriesNothing(t *testing.T) {
	if text := encode(propagation.MapCarrier{}); text != "{}" {
		t.Errorf("expected {}, got %s", text)
	}
	if decoded := Decode(`{"traceparent": 5}`); len(decoded) != 0 {
		t.Errorf("expected nothing, got %v", decoded)
	}
}
