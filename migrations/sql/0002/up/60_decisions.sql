-- What was learned of a strategy: by how much each arm raises the chance of an order, for whom. Decisions score with
-- the live one; without any, the template's prior speaks.
CREATE TABLE estimators (
  shop_id     uuid NOT NULL,
  id          uuid NOT NULL,
  strategy_id uuid NOT NULL,
  version     integer NOT NULL,             -- counts up within a strategy
  kind        text NOT NULL,                -- of decision.scoring: 'logistic_t'
  fitted_at   timestamptz NOT NULL,         -- system time
  model       jsonb NOT NULL,
  quality     jsonb NOT NULL DEFAULT '{}',  -- how well it did on what it had not seen, and on how many
  state       text NOT NULL CHECK (state IN ('live', 'retired', 'inconclusive')),
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, strategy_id, version),
  FOREIGN KEY (shop_id, strategy_id) REFERENCES strategies (shop_id, id)
);
CREATE UNIQUE INDEX estimators_one_live ON estimators (shop_id, strategy_id) WHERE state = 'live';

-- The cool-down after a complaint asks this of everybody who is decided for; complaints are few.
CREATE INDEX timeline_complaints ON timeline (shop_id, customer_id, occurred_at) WHERE type = 'email.complained';
