-- Takes 0006 back, and with it the memory of who did what.

DROP FUNCTION IF EXISTS outbox_error_class(text);
DROP INDEX IF EXISTS idx_outbox_dead_letters;
DROP TABLE IF EXISTS outbox_audit;
