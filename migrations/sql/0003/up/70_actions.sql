-- A provider that says no to everything (a revoked token, an uninstalled app) stops its actions until somebody connects
-- it again; `problem` is what an operator is told.
ALTER TABLE integrations
  ADD COLUMN problem text CHECK (problem IN ('unauthorized', 'uninstalled', 'scopes', 'unavailable')),
  ADD COLUMN problem_detail text,
  ADD COLUMN problem_at timestamptz,
  ADD COLUMN scopes text[] NOT NULL DEFAULT '{}',    -- granted, as last told by the provider
  ADD COLUMN token_expires_at timestamptz,           -- NULL: does not expire, and there is nothing to renew it with
  ADD COLUMN renew_at timestamptz,                   -- when to renew the token
  ADD COLUMN check_at timestamptz,                   -- when to look at scopes, webhooks and problems again
  ADD COLUMN checked_at timestamptz,
  ADD COLUMN subscriptions jsonb NOT NULL DEFAULT '{}';  -- what the last repair of the webhooks found and did

CREATE TABLE oauth_states (                          -- somebody was sent to the shop to grant access
  shop_id uuid NOT NULL, state_digest uuid NOT NULL,
  vendor text NOT NULL, domain text NOT NULL, actor text NOT NULL, asked_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, state_digest)
);

ALTER TABLE coupons
  ADD COLUMN offer text,                             -- the same customer has one code for the same offer
  ADD COLUMN terms jsonb NOT NULL DEFAULT '{}',      -- as the shop system was told (rules.offer.TERMS)
  ADD COLUMN discount_ref text,                      -- the shop's id of it, to take it back by
  ADD COLUMN pool_id uuid,                           -- made ahead: the discount is the whole pool's
  ADD COLUMN recalled_by text,                       -- who asked to take it back
  ADD COLUMN recalled_at timestamptz,                -- system time
  ADD COLUMN recall_retry_at timestamptz,            -- system time: not before; NULL with an error: not again
  ADD COLUMN recall_error text,
  ADD COLUMN deactivated_at timestamptz;             -- shop time: it cannot be used any more
ALTER TABLE coupons ALTER COLUMN percent DROP NOT NULL;
-- of an earlier release: no terms (percent says it all), and the action's provider_ref is the discount's
CREATE INDEX coupons_by_offer ON coupons (shop_id, customer_id, offer) WHERE offer IS NOT NULL;
CREATE INDEX coupons_recalled ON coupons (shop_id, action_id) WHERE recalled_at IS NOT NULL AND deactivated_at IS NULL;
CREATE INDEX actions_by_offer ON actions (shop_id, customer_id, (parameters ->> 'offer'))
  WHERE type = 'coupon' AND parameters ? 'offer' AND parameters ? 'code' AND state IN ('ready', 'sending', 'unknown', 'parked');

-- A coupon that was taken back cannot cost anything: what was committed for it is there again.
ALTER TABLE budget_entries DROP CONSTRAINT budget_entries_kind_check;
ALTER TABLE budget_entries ADD CONSTRAINT budget_entries_kind_check
  CHECK (kind IN ('reserve', 'commit', 'release', 'return'));
DROP INDEX budget_entries_end;
CREATE UNIQUE INDEX budget_entries_end ON budget_entries (shop_id, action_id) WHERE kind IN ('commit', 'release');
CREATE OR REPLACE FUNCTION recount_budget_customers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE budget_entries e SET customer_id = a.customer_id
  FROM actions a WHERE e.shop_id = NEW.shop_id AND e.budget_id = NEW.id AND e.customer_id IS NULL
    AND a.shop_id = e.shop_id AND a.id = e.action_id;
  DELETE FROM budget_customers WHERE shop_id = NEW.shop_id AND budget_id = NEW.id;
  INSERT INTO budget_customers (shop_id, budget_id, customer_id, committed_minor)
  SELECT e.shop_id, e.budget_id, e.customer_id, sum(e.amount_minor)
  FROM budget_entries e
  WHERE e.shop_id = NEW.shop_id AND e.budget_id = NEW.id AND e.kind = 'reserve' AND e.customer_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM budget_entries r WHERE r.shop_id = e.shop_id AND r.action_id = e.action_id
                    AND r.kind IN ('release', 'return'))
  GROUP BY 1, 2, 3;
  RETURN NULL;
END $$;

CREATE TABLE code_pools (                            -- codes made ahead, all of one discount at the shop
  shop_id uuid NOT NULL, id uuid NOT NULL, name text NOT NULL, terms jsonb NOT NULL,
  vendor text NOT NULL, discount_ref text,
  size integer NOT NULL CHECK (size > 0),            -- free codes to have after a filling
  low_water integer NOT NULL CHECK (low_water >= 0 AND low_water <= size),
  state text NOT NULL CHECK (state IN ('asked', 'filling', 'ready', 'failed', 'closed')), error text,
  starts_at timestamptz NOT NULL,                    -- shop time, as ends_at
  ends_at timestamptz,
  retry_at timestamptz,                              -- system time: not before
  closed_by text, deactivated_at timestamptz,        -- system time: the shop has done it
  actor text NOT NULL,
  created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, id)
);
CREATE UNIQUE INDEX code_pools_name ON code_pools (shop_id, name) WHERE state <> 'closed';
CREATE TABLE pool_codes (
  shop_id uuid NOT NULL, pool_id uuid NOT NULL,
  number integer NOT NULL,                           -- the code follows from the pool's id and this
  code text NOT NULL,
  is_made boolean NOT NULL DEFAULT false,            -- the shop has confirmed it
  batch_ref text,                                    -- the shop's id of the job that makes it
  refused text,                                      -- the shop never will: another number stands in for it
  customer_id uuid, action_id uuid, given_at timestamptz,
  PRIMARY KEY (shop_id, pool_id, number), UNIQUE (shop_id, pool_id, code),
  CHECK (customer_id IS NULL OR is_made)
);
CREATE UNIQUE INDEX pool_codes_one_each ON pool_codes (shop_id, customer_id, pool_id) WHERE customer_id IS NOT NULL;
CREATE INDEX pool_codes_free ON pool_codes (shop_id, pool_id, number)
  WHERE is_made AND given_at IS NULL;
CREATE INDEX pool_codes_unmade ON pool_codes (shop_id, pool_id, number) WHERE NOT is_made AND refused IS NULL;
