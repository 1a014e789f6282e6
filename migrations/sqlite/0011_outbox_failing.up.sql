-- What keeps failing is found without a walk over the backlog: PENDING events with three charged attempts or more.
CREATE INDEX idx_outbox_failing ON outbox_events (available_at) WHERE status = 'PENDING' AND attempt_count >= 3;
