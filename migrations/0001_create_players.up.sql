-- The players of the example service, in the columns and constraints that the earlier system's player service has, whichever of
-- them comes first. They stand for any service's own tables: the relay never touches them.

CREATE TABLE IF NOT EXISTS players (
    id            UUID PRIMARY KEY DEFAULT gen_random_uuid(),
    username      VARCHAR(32)  NOT NULL CONSTRAINT uni_players_username UNIQUE,
    email         VARCHAR(255) NOT NULL CONSTRAINT uni_players_email UNIQUE,
    -- The example has no passwords, and writes what no password's hash equals.
    password_hash VARCHAR(255) NOT NULL,
    created_at    TIMESTAMPTZ  NOT NULL DEFAULT now(),
    updated_at    TIMESTAMPTZ  NOT NULL DEFAULT now(),
    CONSTRAINT ck_players_username_len CHECK (char_length(username) >= 3)
);
