-- Strikes step $1, which was taken back in the same transaction.
DELETE FROM outbox_migrations WHERE version = $1::bigint
