CREATE TABLE strategies (
  shop_id     uuid NOT NULL,
  id          uuid NOT NULL,
  key         text NOT NULL,
  name        jsonb NOT NULL,               -- {"en": ..., "zh": ...}
  goal        text NOT NULL CHECK (goal IN ('conversion', 'retention', 'repurchase', 'win_back')),
  state       text NOT NULL CHECK (state IN ('draft', 'live', 'paused', 'archived')),
  definition  jsonb NOT NULL,               -- what rules.strategy parsed, canonical
  holdout     double precision NOT NULL CHECK (holdout >= 0 AND holdout < 1),
  budget_id   uuid,
  revision    integer NOT NULL DEFAULT 1,   -- counts every change of this row or its rules: stamps what workers cache
  started_at  timestamptz,                  -- shop time
  created_at  timestamptz NOT NULL,
  updated_at  timestamptz NOT NULL,
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, key)
);

CREATE TABLE rules (                        -- every version is kept
  shop_id     uuid NOT NULL,
  id          uuid NOT NULL,
  strategy_id uuid NOT NULL,
  key         text NOT NULL,
  version     integer NOT NULL,
  definition  jsonb NOT NULL,
  state       text NOT NULL CHECK (state IN ('draft', 'live', 'retired')),
  created_at  timestamptz NOT NULL,
  created_by  text NOT NULL,
  PRIMARY KEY (shop_id, id, version),
  FOREIGN KEY (shop_id, strategy_id) REFERENCES strategies (shop_id, id)
);
CREATE UNIQUE INDEX rules_one_live ON rules (shop_id, key) WHERE state = 'live';

-- Who was put where, once: the intention-to-treat population of a strategy, both sides.
CREATE TABLE assignments (
  shop_id     uuid NOT NULL,
  strategy_id uuid NOT NULL,
  customer_id uuid NOT NULL,
  held_out    boolean NOT NULL,
  propensity  double precision NOT NULL CHECK (propensity > 0 AND propensity <= 1),  -- of the side it is on
  assigned_at timestamptz NOT NULL,         -- shop time
  decision_id uuid NOT NULL,
  -- before the assignment, so that it cannot depend on it: the covariate of CUPED
  prior_revenue_minor bigint NOT NULL DEFAULT 0,
  prior_orders integer NOT NULL DEFAULT 0,
  PRIMARY KEY (shop_id, strategy_id, customer_id)
);

-- A rule takes a customer once per key (the order id, or '' for "once").
CREATE TABLE enrolments (
  shop_id     uuid NOT NULL,
  rule_id     uuid NOT NULL,
  customer_id uuid NOT NULL,
  key         text NOT NULL,
  entered_at  timestamptz NOT NULL,         -- shop time of the latest entry
  entries     integer NOT NULL DEFAULT 1,
  decision_id uuid NOT NULL,
  PRIMARY KEY (shop_id, rule_id, customer_id, key)
);
