-- Whose rows are visible: one shop (app.shop), or the directory tables of all shops (app.system).
CREATE FUNCTION app_shop() RETURNS uuid LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT NULLIF(current_setting('app.shop', true), '')::uuid $$;
CREATE FUNCTION app_system() RETURNS boolean LANGUAGE sql STABLE PARALLEL SAFE
  AS $$ SELECT COALESCE(current_setting('app.system', true), '') = 'on' $$;

CREATE TABLE shops (
  id           uuid PRIMARY KEY,
  slug         text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9][a-z0-9-]{0,62}$'),
  name         text NOT NULL,
  currency     char(3) NOT NULL,
  time_zone    text NOT NULL DEFAULT 'UTC',
  sandbox      boolean NOT NULL DEFAULT false,
  -- a sandbox's clock is the system's plus this; a real shop has no clock of its own
  clock_offset interval NOT NULL DEFAULT '0' CHECK (sandbox OR clock_offset = '0'),
  margin_rate  numeric(5,4) NOT NULL DEFAULT 0.4 CHECK (margin_rate BETWEEN 0 AND 1),
  seed         text NOT NULL,               -- of holdouts and draws: the same seed assigns the same customers
  settings     jsonb NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL
);

-- At most one pending wake-up per shop, topic and key. The relay deletes what it published.
CREATE TABLE outbox (
  id       uuid NOT NULL,
  shop_id  uuid NOT NULL,
  topic    text NOT NULL,
  key      text NOT NULL,
  rung_at  timestamptz NOT NULL,
  rings    integer NOT NULL DEFAULT 1,
  PRIMARY KEY (shop_id, topic, key)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);

-- Work that was asked for once: a schedule's due time, a clustering, a comparison. It belongs to whoever inserts the
-- row first, so two schedulers are harmless. The task that does it sets finished_at in the transaction of its result
-- (store.ticks.finish); until then the shop's backlog is not empty.
CREATE TABLE schedule_ticks (
  shop_id     uuid NOT NULL,
  schedule    text NOT NULL,                -- 'rule:<rule id>', or a topic: 'clustering.fit', 'effects.compare'
  due_at      timestamptz NOT NULL,         -- shop time
  taken_at    timestamptz NOT NULL,         -- system time
  finished_at timestamptz,                  -- system time; NULL: still to be done
  PRIMARY KEY (shop_id, schedule, due_at)
);
CREATE INDEX schedule_ticks_open ON schedule_ticks (shop_id, schedule) WHERE finished_at IS NULL;

CREATE TABLE audit_log (
  shop_id        uuid NOT NULL,
  seq            bigint NOT NULL,
  at             timestamptz NOT NULL,
  actor          text NOT NULL,
  verb           text NOT NULL,
  subject        text NOT NULL,
  detail         jsonb NOT NULL,
  previous_hash  bytea NOT NULL,
  hash           bytea NOT NULL,
  PRIMARY KEY (shop_id, seq)
);

-- One row per running process, so that /readyz and `doctor` can say who is missing.
CREATE TABLE heartbeats (
  component text NOT NULL,
  instance  text NOT NULL,
  beat_at   timestamptz NOT NULL,
  detail    jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (component, instance)
);
