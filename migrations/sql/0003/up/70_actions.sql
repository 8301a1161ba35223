-- A provider that says no to everything (a revoked token, an uninstalled app) stops its actions until somebody connects
-- it again; `problem` is what an operator is told.
ALTER TABLE integrations
  ADD COLUMN problem text CHECK (problem IN ('unauthorized', 'uninstalled', 'scopes', 'unavailable')),
  ADD COLUMN problem_detail text,
  ADD COLUMN problem_at timestamptz,
  ADD COLUMN scopes text[] NOT NULL DEFAULT '{}',    -- granted, as last told by the provider
  ADD COLUMN token_expires_at timestamptz,           -- NULL: does not expire, and there is nothing to renew it with
  ADD COLUMN renew_at timestamptz,                   -- when to renew the token, or to ask whether a problem has passed
  ADD COLUMN check_at timestamptz,                   -- when to look at scopes and webhooks again; NULL: when asked to
  ADD COLUMN checked_at timestamptz,
  ADD COLUMN subscriptions jsonb NOT NULL DEFAULT '{}';  -- what the last repair of the webhooks found and did

CREATE TABLE oauth_states (                          -- somebody was sent to the shop to grant access
  shop_id uuid NOT NULL, state_digest uuid NOT NULL,
  vendor text NOT NULL, domain text NOT NULL, actor text NOT NULL, asked_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, state_digest)
);

ALTER TABLE coupons
  ADD COLUMN offer text,                             -- the same customer has one code for the same offer
  ADD COLUMN terms jsonb NOT NULL DEFAULT '{}',
  ADD COLUMN discount_ref text,                      -- the shop's id of it, to take it back by
  ADD COLUMN deactivated_at timestamptz;
ALTER TABLE coupons ALTER COLUMN percent DROP NOT NULL;

CREATE TABLE code_pools (                            -- codes made ahead, all of one discount at the shop
  shop_id uuid NOT NULL, id uuid NOT NULL, name text NOT NULL, terms jsonb NOT NULL,
  discount_ref text, size integer NOT NULL, low_water integer NOT NULL,
  state text NOT NULL CHECK (state IN ('asked', 'filling', 'ready', 'failed', 'closed')), error text,
  starts_at timestamptz NOT NULL, ends_at timestamptz, actor text NOT NULL,
  created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, id), UNIQUE (shop_id, name)
);
CREATE TABLE pool_codes (
  shop_id uuid NOT NULL, pool_id uuid NOT NULL, code text NOT NULL,
  is_made boolean NOT NULL DEFAULT false,            -- the shop has confirmed it
  customer_id uuid, action_id uuid, given_at timestamptz,
  PRIMARY KEY (shop_id, pool_id, code)
);
CREATE UNIQUE INDEX pool_codes_one_each ON pool_codes (shop_id, pool_id, customer_id) WHERE customer_id IS NOT NULL;
CREATE INDEX pool_codes_free ON pool_codes (shop_id, pool_id, code) WHERE customer_id IS NULL;
