CREATE TABLE budgets (
  shop_id        uuid NOT NULL,
  id             uuid NOT NULL,
  name           text NOT NULL,
  currency       char(3) NOT NULL,
  limit_minor    bigint NOT NULL,
  reserved_minor bigint NOT NULL DEFAULT 0 CHECK (reserved_minor >= 0),
  spent_minor    bigint NOT NULL DEFAULT 0 CHECK (spent_minor >= 0),
  CHECK (reserved_minor + spent_minor <= limit_minor),   -- the database refuses to overspend
  PRIMARY KEY (shop_id, id)
);

CREATE TABLE budget_entries (
  shop_id      uuid NOT NULL,
  budget_id    uuid NOT NULL,
  action_id    uuid NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('reserve', 'commit', 'release')),
  amount_minor bigint NOT NULL,
  at           timestamptz NOT NULL,
  PRIMARY KEY (shop_id, action_id, kind)
);
-- a reservation ends once: committed or released
CREATE UNIQUE INDEX budget_entries_end ON budget_entries (shop_id, action_id) WHERE kind <> 'reserve';

CREATE TABLE actions (
  shop_id        uuid NOT NULL,
  id             uuid NOT NULL,
  decision_id    uuid NOT NULL,
  customer_id    uuid NOT NULL,
  strategy_id    uuid NOT NULL,
  rule_id        uuid NOT NULL,
  arm            text NOT NULL,
  step           smallint NOT NULL,
  type           text NOT NULL,             -- of actions.catalogue: 'email', 'coupon', ...
  channel        text NOT NULL,             -- 'email', 'coupon'
  held_out       boolean NOT NULL,          -- walks the same path into the trap, never to a provider
  topic          text NOT NULL DEFAULT 'marketing',
  parameters     jsonb NOT NULL,
  after_action   uuid,                      -- waits until that one is sent (an e-mail for its coupon's code)
  dedupe_key     text NOT NULL,
  decided_at     timestamptz NOT NULL,      -- shop time of the decision
  exit_on        text[] NOT NULL DEFAULT '{}',  -- event types that make it pointless once they follow the decision
  state          text NOT NULL CHECK (state IN ('waiting_approval', 'ready', 'sending', 'sent', 'unknown',
                   'suppressed', 'over_budget', 'failed', 'cancelled', 'parked')),
  reason         text,
  due_at         timestamptz NOT NULL,      -- shop time
  retry_at       timestamptz,               -- system time: not before
  lease_until    timestamptz,               -- system time
  fence          bigint NOT NULL DEFAULT 0,
  attempt        smallint NOT NULL DEFAULT 0,
  maybe_sent     boolean NOT NULL DEFAULT false,
  lookups        smallint NOT NULL DEFAULT 0,   -- how often the provider was asked about an unknown outcome
  provider       text,
  provider_ref   text,
  result         jsonb NOT NULL DEFAULT '{}',
  cost_minor     bigint NOT NULL DEFAULT 0, -- of one sending, in the shop's currency
  budget_id      uuid,
  reserved_minor bigint NOT NULL DEFAULT 0,
  approved_by    text,                      -- NULL: no person was needed
  event_received_at timestamptz,            -- system time of the triggering event's receipt; NULL: planned for later
  called_at      timestamptz,               -- system time of the first call to the provider
  sent_at        timestamptz,               -- shop time
  created_at     timestamptz NOT NULL,      -- system time
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, dedupe_key)
) WITH (fillfactor = 80);
CREATE INDEX actions_due ON actions (shop_id, channel, due_at) WHERE state = 'ready';
CREATE INDEX actions_leased ON actions (shop_id, lease_until) WHERE state = 'sending';
CREATE INDEX actions_unknown ON actions (shop_id, retry_at) WHERE state = 'unknown';
CREATE INDEX actions_customer ON actions (shop_id, customer_id, sent_at);
CREATE INDEX actions_following ON actions (shop_id, after_action) WHERE after_action IS NOT NULL AND state = 'ready';
CREATE INDEX actions_provider ON actions (shop_id, provider, provider_ref) WHERE provider_ref IS NOT NULL;

CREATE TABLE attempts (                     -- append-only: one call to a provider
  shop_id     uuid NOT NULL,
  action_id   uuid NOT NULL,
  number      smallint NOT NULL,
  fence       bigint NOT NULL,
  started_at  timestamptz NOT NULL,
  finished_at timestamptz,
  outcome     text,                         -- 'sent', 'not_sent', 'unknown'; NULL: no answer was recorded
  detail      text,
  PRIMARY KEY (shop_id, action_id, number)
);

CREATE TABLE coupons (
  shop_id       uuid NOT NULL,
  action_id     uuid NOT NULL,
  customer_id   uuid NOT NULL,
  code          text NOT NULL,
  percent       numeric(5,2) NOT NULL CHECK (percent > 0 AND percent <= 100),
  issued_at     timestamptz NOT NULL,       -- shop time
  expires_at    timestamptz NOT NULL,
  redeemed_order_id uuid,
  redeemed_at   timestamptz,
  PRIMARY KEY (shop_id, action_id),
  UNIQUE (shop_id, code)
);

CREATE TABLE integrations (
  shop_id    uuid NOT NULL,
  vendor     text NOT NULL,
  channel    text,                          -- the channel it serves, if any
  base_url   text NOT NULL,
  config     jsonb NOT NULL DEFAULT '{}',
  secrets    bytea,                         -- sealed JSON (kit.secrets.Vault)
  enabled    boolean NOT NULL DEFAULT true,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, vendor)
);
CREATE UNIQUE INDEX integrations_one_per_channel ON integrations (shop_id, channel) WHERE enabled AND channel IS NOT NULL;
