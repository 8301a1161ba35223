CREATE TABLE decisions (
  shop_id          uuid NOT NULL,
  id               uuid NOT NULL,
  recorded_at      timestamptz NOT NULL,    -- system time; the partition key
  decided_at       timestamptz NOT NULL,    -- shop time
  customer_id      uuid NOT NULL,
  strategy_id      uuid NOT NULL,
  rule_id          uuid NOT NULL,
  rule_version     integer NOT NULL,
  trigger          text NOT NULL,           -- event type or schedule
  event_id         uuid,
  verdict          text NOT NULL,           -- 'act', 'holdout', or why not: 'no_consent', 'capped', ... (decision.receipt.VERDICTS)
  arm              text,
  propensity       double precision,        -- of this arm, or of being held out, given the customer reached the draw
  receipt          jsonb NOT NULL,
  PRIMARY KEY (id, recorded_at)
) PARTITION BY RANGE (recorded_at);
CREATE INDEX decisions_customer ON decisions (shop_id, customer_id, decided_at);
CREATE INDEX decisions_strategy ON decisions (shop_id, strategy_id, id);
