-- A letter with one of the ids ?1, the topic ?2, the event type ?3 and an error of the class ?4, inserted from ?5 on and
-- before ?6. What is NULL is not asked for. Times are compared in one spelling, whatever they were inserted as.
(
    {is_named}
    AND (?2 IS NULL OR topic = ?2)
    AND (?3 IS NULL OR event_type = ?3)
    AND (?4 IS NULL OR ' ' || last_error = ' ' || ?4 COLLATE outbox_error_class)
    AND (?5 IS NULL OR strftime('%Y-%m-%dT%H:%M:%fZ', created_at) >= ?5)
    AND (?6 IS NULL OR strftime('%Y-%m-%dT%H:%M:%fZ', created_at) < ?6)
)
