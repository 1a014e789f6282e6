-- Lists the indexes of the table. One whose CREATE INDEX CONCURRENTLY failed half-way is there and not valid: it costs
-- every write and helps no read.
SELECT index.relname::text AS name, pg_index.indisvalid AND pg_index.indisready AS usable, pg_index.indisprimary AS "primary"
FROM pg_index
JOIN pg_class AS index ON index.oid = pg_index.indexrelid
WHERE pg_index.indrelid = to_regclass('outbox_events')
