-- Immutable facts. Partitioned by the month of receipt (system time), so that retention drops partitions.
CREATE TABLE events (
  shop_id     uuid NOT NULL,
  id          uuid NOT NULL,
  source      text NOT NULL,                -- 'segment', 'shopify', 'sendgrid', 'import', ...
  source_id   text NOT NULL,                -- the source's own id
  type        text NOT NULL,                -- of the catalogue, past tense: 'product.viewed'
  name        text,                         -- the source's own name of a custom event
  occurred_at timestamptz NOT NULL,         -- shop time
  received_at timestamptz NOT NULL,         -- system time
  identity    jsonb NOT NULL,               -- {external, email, phone, shopify, anonymous, previous}
  properties  jsonb NOT NULL,
  context     jsonb NOT NULL,
  PRIMARY KEY (id, received_at)
) PARTITION BY RANGE (received_at);

-- Same source and same source id again: accepted, counted, not stored twice. digest = ids.digest_id(source, source_id).
CREATE TABLE event_keys (
  shop_id     uuid NOT NULL,
  digest      uuid NOT NULL,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, digest)
);

-- What is still to be processed, in order of arrival; a row goes when its event has been processed.
-- A partition (a hash of the customer's identity) is processed by one worker at a time: order per customer.
CREATE TABLE event_queue (
  shop_id     uuid NOT NULL,
  partition   smallint NOT NULL,
  seq         bigint GENERATED ALWAYS AS IDENTITY,
  event_id    uuid NOT NULL,
  received_at timestamptz NOT NULL,
  attempts    smallint NOT NULL DEFAULT 0,
  PRIMARY KEY (shop_id, partition, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

-- Events that could not be processed after several attempts: kept, shown, replayable.
CREATE TABLE event_failures (
  shop_id     uuid NOT NULL,
  event_id    uuid NOT NULL,
  received_at timestamptz NOT NULL,
  partition   smallint NOT NULL,
  failed_at   timestamptz NOT NULL,
  error       text NOT NULL,
  PRIMARY KEY (shop_id, event_id)
);

CREATE TABLE imports (
  shop_id     uuid NOT NULL,
  id          uuid NOT NULL,
  file_name   text NOT NULL,
  file_sha256 bytea NOT NULL,
  mapping     jsonb NOT NULL,
  state       text NOT NULL CHECK (state IN ('running', 'done')),
  position    bigint NOT NULL DEFAULT 0,    -- rows read and committed: where a resumed import goes on
  accepted    bigint NOT NULL DEFAULT 0,
  duplicates  bigint NOT NULL DEFAULT 0,
  rejected    bigint NOT NULL DEFAULT 0,
  started_at  timestamptz NOT NULL,
  finished_at timestamptz,
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, file_sha256, mapping)
);

CREATE TABLE import_rejections (
  shop_id   uuid NOT NULL,
  import_id uuid NOT NULL,
  line      bigint NOT NULL,
  reason    text NOT NULL,
  row       jsonb NOT NULL,
  PRIMARY KEY (shop_id, import_id, line)
);
