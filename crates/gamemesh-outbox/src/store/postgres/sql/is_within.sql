-- An event with one of the ids $1, inserted from $5 on and before $6. What is NULL is not asked for.
(
    ($1::uuid[] IS NULL OR event.id = ANY ($1::uuid[]))
    AND ($5::timestamptz IS NULL OR event.created_at >= $5::timestamptz)
    AND ($6::timestamptz IS NULL OR event.created_at < $6::timestamptz)
)
