-- Strategies held against the past, asked for once: what was asked stays as it was, whatever is edited afterwards.
CREATE TABLE backtests (
  shop_id      uuid NOT NULL,
  id           uuid NOT NULL,
  strategy_id  uuid NOT NULL,
  strategy_key text NOT NULL,
  version      integer,                      -- NULL: a definition that was sent along
  live_version integer,                      -- that it is compared with
  definition   jsonb NOT NULL,
  live         jsonb,
  request      jsonb NOT NULL,               -- {days, version}
  state        text NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed')),
  attempts     smallint NOT NULL DEFAULT 0,
  until        timestamptz NOT NULL,         -- shop time; so are the days before it
  asked_at     timestamptz NOT NULL,         -- system time, as the next two
  asked_by     text NOT NULL,
  started_at   timestamptz,
  finished_at  timestamptz,
  result       jsonb,
  error        text,
  PRIMARY KEY (shop_id, id)
);
CREATE INDEX backtests_of_strategy ON backtests (shop_id, strategy_id, id DESC);
CREATE INDEX backtests_open ON backtests (shop_id) WHERE state IN ('queued', 'running');
