-- Enters step $1, named $2, whose SQL has the checksum $3 and took $4 nanoseconds. It is in one transaction with that SQL,
-- so there is none that did not succeed.
INSERT INTO outbox_migrations (version, description, success, checksum, execution_time)
VALUES ($1::bigint, $2::text, TRUE, $3::bytea, $4::bigint)
