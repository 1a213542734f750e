-- A better name, in one transaction. The old one stays readable, for the contracts that say it.
BEGIN;
ALTER TABLE orders RENAME COLUMN status TO state;
ALTER TABLE orders ADD COLUMN status TEXT NOT NULL GENERATED ALWAYS AS (state) VIRTUAL;
COMMIT;
