-- Claims the oldest due events; migrations 0009 and 0010 say how, and what the parameters are. Where the primary key was
-- dropped a row may have no id: nothing can be written about it, and it keeps no other.
SELECT place,
       id,
       topic,
       event_type,
       payload,
       payload_bytes,
       carrier,
       headers,
       event_key,
       created_at,
       attempt_count,
       available_at,
       beyond
FROM outbox_claim(
    $1::bigint, $2::bigint, $3::bigint, $4::text[], $5::text[], $6::uuid[], $7::timestamptz, $8::uuid, $9::boolean
)
WHERE id IS NOT NULL
