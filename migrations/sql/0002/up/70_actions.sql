ALTER TABLE actions
  ADD COLUMN tags        text[] NOT NULL DEFAULT '{}',    -- of the step and its strategy; caps may count one tag only
  ADD COLUMN counted     boolean NOT NULL DEFAULT true,   -- caps count it (marketing messages only, whatever it says)
  ADD COLUMN held_back   boolean NOT NULL DEFAULT true,   -- caps may hold it back (the same)
  ADD COLUMN stale_at    timestamptz,                     -- shop time: from then on it is dropped
  ADD COLUMN claimed_at  timestamptz,                     -- shop time at which it counts as tried: caps count from here
  ADD COLUMN run_id      uuid,
  ADD COLUMN campaign_id uuid,
  ADD COLUMN approval_id uuid;                            -- whose yes it needs; NULL: nobody's
CREATE INDEX actions_of_approval ON actions (shop_id, approval_id) WHERE approval_id IS NOT NULL;
CREATE INDEX actions_of_run ON actions (shop_id, run_id) WHERE run_id IS NOT NULL;
CREATE INDEX actions_of_campaign ON actions (shop_id, campaign_id)
  WHERE campaign_id IS NOT NULL AND state IN ('waiting_approval', 'ready');

-- NULL: no such limit. Reserved + spent never exceed limit_minor (0001); the two below are refused by the CHECKs of
-- budget_days and budget_customers, which carry a copy of the limit they were last reserved under. A limit may be set
-- below what is committed already: then nothing more fits until releases, or another day, make room.
ALTER TABLE budgets
  ADD COLUMN daily_minor        bigint CHECK (daily_minor >= 0),
  ADD COLUMN per_customer_minor bigint CHECK (per_customer_minor >= 0);

ALTER TABLE budget_entries
  ADD COLUMN day         date,              -- of the shop's calendar; NULL: before this release, counts in no day
  ADD COLUMN customer_id uuid;
CREATE INDEX budget_entries_budget ON budget_entries (shop_id, budget_id, customer_id) WHERE kind = 'reserve';

CREATE TABLE budget_days (
  shop_id         uuid NOT NULL,
  budget_id       uuid NOT NULL,
  day             date NOT NULL,            -- of the shop's calendar
  committed_minor bigint NOT NULL CHECK (committed_minor >= 0),   -- reserved + spent of that day's decisions
  limit_minor     bigint,                   -- budgets.daily_minor when this was last reserved from
  CONSTRAINT budget_days_limit CHECK (committed_minor <= limit_minor),
  PRIMARY KEY (shop_id, budget_id, day)
) WITH (fillfactor = 50);

-- Kept for budgets with a per-customer limit only; made from the entries when one is set.
CREATE TABLE budget_customers (
  shop_id         uuid NOT NULL,
  budget_id       uuid NOT NULL,
  customer_id     uuid NOT NULL,
  committed_minor bigint NOT NULL CHECK (committed_minor >= 0),
  limit_minor     bigint,                   -- budgets.per_customer_minor when this was last reserved from
  CONSTRAINT budget_customers_limit CHECK (committed_minor <= limit_minor),
  PRIMARY KEY (shop_id, budget_id, customer_id)
);

CREATE FUNCTION recount_budget_customers() RETURNS trigger LANGUAGE plpgsql AS $$
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
CREATE TRIGGER budgets_recount AFTER UPDATE OF per_customer_minor ON budgets FOR EACH ROW
  WHEN (OLD.per_customer_minor IS NULL AND NEW.per_customer_minor IS NOT NULL)
  EXECUTE FUNCTION recount_budget_customers();

-- How many decisions to act a strategy took on a day of the shop's calendar.
CREATE TABLE execution_days (
  shop_id     uuid NOT NULL,
  strategy_id uuid NOT NULL,
  day         date NOT NULL,
  taken       integer NOT NULL CHECK (taken >= 0),
  most        integer NOT NULL,             -- the strategy's limit when one was last taken
  CONSTRAINT execution_days_limit CHECK (taken <= most),
  PRIMARY KEY (shop_id, strategy_id, day)
) WITH (fillfactor = 50);
