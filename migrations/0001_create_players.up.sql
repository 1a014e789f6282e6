-- The players of the example service. These tables stand for any service's own: the relay never touches them.

CREATE TABLE IF NOT EXISTS players (
    id         UUID PRIMARY KEY,
    name       TEXT NOT NULL,
    email      TEXT UNIQUE,
    created_at TIMESTAMPTZ NOT NULL DEFAULT now()
);
