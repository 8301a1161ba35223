-- Once the generator has looked: what it had to choose from, within which bounds, and what came of it.
CREATE TABLE proposal_runs (
  shop_id       uuid NOT NULL,
  id            uuid NOT NULL,
  clustering_id uuid NOT NULL,
  as_of         timestamptz NOT NULL,       -- shop time
  made_at       timestamptz NOT NULL,       -- system time
  made_by       text NOT NULL,
  horizon_days  smallint NOT NULL,
  bounds        jsonb NOT NULL,             -- {budget_minor, messages, strategies, auto_start_below_minor}
  options       integer NOT NULL,
  profit_minor  bigint NOT NULL,            -- expected of the chosen together, over the horizon
  spend_minor   bigint NOT NULL,
  PRIMARY KEY (shop_id, id)
);
CREATE INDEX proposal_runs_newest ON proposal_runs (shop_id, made_at DESC);

CREATE TABLE proposals (                    -- every option, chosen or not, with why
  shop_id     uuid NOT NULL,
  id          uuid NOT NULL,
  run_id      uuid NOT NULL,
  key         text NOT NULL,                -- of the strategy it would be
  template    text NOT NULL,
  lineage_id  uuid NOT NULL,
  cluster     jsonb NOT NULL,               -- {label_key, labels, size, reachable, price_sensitivity}
  depth       double precision,             -- percent; NULL: no coupon
  hour        smallint,                     -- of the shop's day; NULL: the template's
  state       text NOT NULL CHECK (state IN ('drafted', 'started', 'left_out', 'dismissed')),
  -- over the horizon: {customers, orders, orders_lower, ..., profit, ..., spend, evidence}; money in minor units
  prediction  jsonb NOT NULL,
  reasons     jsonb NOT NULL,               -- {"en": [...], "zh": [...]}
  left_out    jsonb,                        -- {why, detail}, of what was not chosen
  definition  jsonb NOT NULL,
  strategy_id uuid,                         -- the draft that was made of it
  PRIMARY KEY (shop_id, id),
  FOREIGN KEY (shop_id, run_id) REFERENCES proposal_runs (shop_id, id)
);
CREATE INDEX proposals_run ON proposals (shop_id, run_id);
