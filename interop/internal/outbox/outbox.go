// Package outbox is the table as the earlier system knows it, and every statement that it sends there.
package outbox

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"

	"github.com/gamemesh/gamemesh-outbox/interop/internal/tracing"
)

// The states of a row.
const (
	Pending   = "PENDING"
	Published = "PUBLISHED"
	Failed    = "FAILED"
)

const exhausted = "publish failed: max attempts exceeded"

// JSON is the text of a jsonb column.
type JSON string

// Value gives the text to the driver.
func (j JSON) Value() (driver.Value, error) { return string(j), nil }

// Scan takes what the driver has read.
func (j *JSON) Scan(value any) error {
	switch text := value.(type) {
	case string:
		*j = JSON(text)
	case []byte:
		*j = JSON(text)
	case nil:
		*j = ""
	default:
		return fmt.Errorf("expected JSON as text, got %T", value)
	}
	return nil
}

// Row is the model from which the player service migrates the table by itself. last_error is not NOT NULL here, unlike
// in the SQL migrations.
type Row struct {
	ID           string     `gorm:"column:id;type:uuid;primaryKey"`
	EventType    string     `gorm:"column:event_type;type:text;not null"`
	Topic        string     `gorm:"column:topic;type:text;not null"`
	Payload      JSON       `gorm:"column:payload;type:jsonb;not null"`
	Carrier      JSON       `gorm:"column:carrier;type:jsonb;not null;default:'{}'"`
	Status       string     `gorm:"column:status;type:text;not null;default:PENDING"`
	CreatedAt    time.Time  `gorm:"column:created_at;type:timestamptz;not null"`
	PublishedAt  *time.Time `gorm:"column:published_at;type:timestamptz"`
	AttemptCount int        `gorm:"column:attempt_count;type:integer;not null;default:0"`
	LastError    string     `gorm:"column:last_error;type:text"`
}

// TableName is what everybody calls it.
func (Row) TableName() string { return "outbox_events" }

// Open connects to the database. Statements are prepared on the connection, as pgx does by default.
func Open(dsn string) (*gorm.DB, error) {
	return gorm.Open(postgres.Open(dsn), &gorm.Config{
		Logger:  logger.Discard,
		NowFunc: func() time.Time { return time.Now().UTC() },
	})
}

// Migrate does what the player service does at its start when AUTO_MIGRATE is on.
func Migrate(db *gorm.DB) error {
	return db.AutoMigrate(&Row{})
}

// Claim locks the oldest pending rows that nobody else has locked. Valid inside of a transaction.
func Claim(tx *gorm.DB, batch int) ([]Row, error) {
	var rows []Row
	err := claiming(tx, batch).Find(&rows).Error
	return rows, err
}

func claiming(tx *gorm.DB, batch int) *gorm.DB {
	return tx.
		Clauses(clause.Locking{Strength: "UPDATE", Options: "SKIP LOCKED"}).
		Where("status = ?", Pending).
		Order("created_at ASC").
		Limit(batch)
}

// MarkPublished writes that the bus has acknowledged these.
func MarkPublished(tx *gorm.DB, ids []string) error {
	return tx.Model(&Row{}).Where("id IN ?", ids).
		Updates(map[string]any{"status": Published, "published_at": time.Now().UTC()}).Error
}

// Charge counts an attempt of each, ends those that have had their maximum, and returns how many those are.
func Charge(tx *gorm.DB, ids []string, maximum int) (int64, error) {
	if err := charging(tx, ids, maximum).Error; err != nil || maximum <= 0 {
		return 0, err
	}
	var ended int64
	err := tx.Model(&Row{}).Where("id IN ? AND status = ?", ids, Failed).Count(&ended).Error
	return ended, err
}

func charging(tx *gorm.DB, ids []string, maximum int) *gorm.DB {
	attempts := gorm.Expr("attempt_count + 1")
	if maximum <= 0 {
		return tx.Model(&Row{}).Where("id IN ?", ids).Updates(map[string]any{"attempt_count": attempts})
	}
	return tx.Model(&Row{}).Where("id IN ?", ids).Updates(map[string]any{
		"attempt_count": attempts,
		"last_error":    gorm.Expr("CASE WHEN attempt_count + 1 >= ? THEN ? ELSE last_error END", maximum, exhausted),
		"status":        gorm.Expr("CASE WHEN attempt_count + 1 >= ? THEN ? ELSE status END", maximum, Failed),
	})
}

// CountPending is what the gauge shows.
func CountPending(db *gorm.DB) (int64, error) {
	var count int64
	err := db.Model(&Row{}).Where("status = ?", Pending).Count(&count).Error
	return count, err
}

// New makes the row of an event, with the span that inserts it in its carrier. The span is ended by the caller's
// transaction, so it is not a part of this.
func New(ctx context.Context, topic, eventType string, payload []byte) Row {
	ctx, span := tracing.Tracer().Start(ctx, "outbox.insert "+topic)
	defer span.End()
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	return Row{
		ID:        uuid.NewString(),
		EventType: eventType,
		Topic:     topic,
		Payload:   JSON(payload),
		Carrier:   encode(carrier),
		Status:    Pending,
		CreatedAt: time.Now().UTC(),
	}
}

// Insert writes rows in the caller's transaction. It names every column that it knows.
func Insert(tx *gorm.DB, rows []Row) error {
	return tx.Select("*").Create(&rows).Error
}
