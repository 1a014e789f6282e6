-- One row of statistics for each player, written in the same transaction as the player and the event: the example of
-- business rows that must not exist without their announcement. As the earlier system has it.

CREATE TABLE IF NOT EXISTS player_stats (
    player_id    UUID PRIMARY KEY REFERENCES players (id) ON DELETE CASCADE,
    rank         INTEGER NOT NULL DEFAULT 1000 CONSTRAINT ck_player_stats_rank CHECK (rank >= 0),
    score        BIGINT  NOT NULL DEFAULT 0,
    games_played INTEGER NOT NULL DEFAULT 0 CONSTRAINT ck_player_stats_games CHECK (games_played >= 0),
    updated_at   TIMESTAMPTZ NOT NULL DEFAULT now()
);

CREATE INDEX IF NOT EXISTS idx_player_stats_rank ON player_stats (rank);
