-- One row of statistics for each player, written in the same transaction as the player and the event: the example of
-- business rows that must not exist without their announcement.

CREATE TABLE IF NOT EXISTS player_stats (
    player_id    UUID PRIMARY KEY REFERENCES players (id) ON DELETE CASCADE,
    games_played INTEGER NOT NULL DEFAULT 0,
    games_won    INTEGER NOT NULL DEFAULT 0,
    updated_at   TIMESTAMPTZ NOT NULL DEFAULT now()
);
