-- ?1: retention in seconds; ?2: most rows. A PUBLISHED row without a time was marked by hand and is left alone.
DELETE FROM outbox_events
WHERE rowid IN (
    SELECT rowid
    FROM outbox_events
    WHERE status = 'PUBLISHED'
      AND published_at < strftime('%Y-%m-%dT%H:%M:%fZ', 'now', printf('-%.3f seconds', ?1))
    ORDER BY published_at
    LIMIT ?2
)
