-- Lists the expected indexes that are missing, and how the database writes its journal.
SELECT
    (
        SELECT coalesce(group_concat(value, ', '), '')
        FROM json_each('["idx_outbox_due", "idx_outbox_failed", "idx_outbox_failing", "idx_outbox_pending", "idx_outbox_published"]')
        WHERE value NOT IN (SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'outbox_events')
    ) AS missing_indexes,
    (SELECT journal_mode FROM pragma_journal_mode) AS journal_mode
