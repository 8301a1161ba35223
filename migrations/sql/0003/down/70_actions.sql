DROP TABLE pool_codes, code_pools, oauth_states;

-- rows that the release before cannot hold; of every shop, so the owner looks past the policies for a moment
ALTER TABLE coupons NO FORCE ROW LEVEL SECURITY;
DELETE FROM coupons WHERE percent IS NULL;
ALTER TABLE coupons FORCE ROW LEVEL SECURITY;
ALTER TABLE coupons ALTER COLUMN percent SET NOT NULL;
DROP INDEX coupons_by_offer, coupons_recalled, actions_by_offer;
ALTER TABLE coupons
  DROP COLUMN offer, DROP COLUMN terms, DROP COLUMN discount_ref, DROP COLUMN pool_id, DROP COLUMN recalled_by,
  DROP COLUMN recalled_at, DROP COLUMN recall_retry_at, DROP COLUMN recall_error, DROP COLUMN deactivated_at;

ALTER TABLE budget_entries NO FORCE ROW LEVEL SECURITY;
DELETE FROM budget_entries WHERE kind = 'return';
ALTER TABLE budget_entries FORCE ROW LEVEL SECURITY;
ALTER TABLE budget_entries DROP CONSTRAINT budget_entries_kind_check;
ALTER TABLE budget_entries ADD CONSTRAINT budget_entries_kind_check CHECK (kind IN ('reserve', 'commit', 'release'));
DROP INDEX budget_entries_end;
CREATE UNIQUE INDEX budget_entries_end ON budget_entries (shop_id, action_id) WHERE kind <> 'reserve';
CREATE OR REPLACE FUNCTION recount_budget_customers() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE budget_entries e SET customer_id = a.customer_id   -- of the last release
  FROM actions a WHERE e.shop_id = NEW.shop_id AND e.budget_id = NEW.id AND e.customer_id IS NULL
    AND a.shop_id = e.shop_id AND a.id = e.action_id;
  DELETE FROM budget_customers WHERE shop_id = NEW.shop_id AND budget_id = NEW.id;
  INSERT INTO budget_customers (shop_id, budget_id, customer_id, committed_minor)
  SELECT e.shop_id, e.budget_id, e.customer_id, sum(e.amount_minor)
  FROM budget_entries e
  WHERE e.shop_id = NEW.shop_id AND e.budget_id = NEW.id AND e.kind = 'reserve' AND e.customer_id IS NOT NULL
    AND NOT EXISTS (SELECT 1 FROM budget_entries r
                    WHERE r.shop_id = e.shop_id AND r.action_id = e.action_id AND r.kind = 'release')
  GROUP BY 1, 2, 3;
  RETURN NULL;
END $$;

ALTER TABLE integrations
  DROP COLUMN problem, DROP COLUMN problem_detail, DROP COLUMN problem_at, DROP COLUMN scopes,
  DROP COLUMN token_expires_at, DROP COLUMN renew_at, DROP COLUMN check_at, DROP COLUMN checked_at,
  DROP COLUMN subscriptions;
