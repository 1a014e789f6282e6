-- Lists what was applied, by this release or another.
SELECT version, description, checksum FROM outbox_migrations WHERE success ORDER BY version
