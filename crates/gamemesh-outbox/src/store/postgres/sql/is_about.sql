-- An event with the topic $2, the event type $3 and an error of the class $4. What is NULL is not asked for.
(
    ($2::text IS NULL OR event.topic = $2::text)
    AND ($3::text IS NULL OR event.event_type = $3::text)
    AND ($4::text IS NULL OR outbox_error_class(event.last_error) = $4::text)
)
