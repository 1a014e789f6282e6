-- Claims the oldest due events; migration 0009 says how, and what the parameters are.
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
    $1::bigint, $2::bigint, $3::bigint, $4::text[], $5::text[], $6::timestamptz, $7::uuid, $8::boolean
)
