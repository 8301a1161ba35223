CREATE TABLE outcomes (                     -- an event attributed to an action
  shop_id     uuid NOT NULL,
  action_id   uuid NOT NULL,
  event_id    uuid NOT NULL,
  kind        text NOT NULL,                -- 'delivered', 'opened', 'clicked', 'redeemed', 'ordered', 'unsubscribed', 'bounced', 'complained'
  customer_id uuid NOT NULL,
  strategy_id uuid NOT NULL,
  occurred_at timestamptz NOT NULL,         -- shop time
  value_minor bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (shop_id, action_id, event_id, kind)
);
CREATE INDEX outcomes_strategy ON outcomes (shop_id, strategy_id, kind);

-- Profit = margin - discount - message cost - refunds; append-only, signed, one row per cause.
CREATE TABLE ledger (
  shop_id      uuid NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('margin', 'discount', 'message_cost', 'refund')),
  source_id    text NOT NULL,               -- the order, refund event or action it comes from
  customer_id  uuid NOT NULL,
  amount_minor bigint NOT NULL,             -- positive earns, negative costs
  currency     char(3) NOT NULL,
  occurred_at  timestamptz NOT NULL,        -- shop time
  PRIMARY KEY (shop_id, kind, source_id)
);
CREATE INDEX ledger_customer ON ledger (shop_id, customer_id, occurred_at);

CREATE TABLE effects (                      -- every comparison that was made, with the moment it was made at
  shop_id     uuid NOT NULL,
  id          uuid NOT NULL,
  strategy_id uuid,                         -- NULL: the whole programme
  metric      text NOT NULL,                -- 'orders', 'revenue', 'profit'
  as_of       timestamptz NOT NULL,         -- shop time
  computed_at timestamptz NOT NULL,         -- system time
  treated     bigint NOT NULL,
  held_out    bigint NOT NULL,
  estimate    double precision,             -- total increment over the treated; NULL with a reason
  lower       double precision,
  upper       double precision,
  reason      text,
  detail      jsonb NOT NULL,
  PRIMARY KEY (shop_id, id)
);
CREATE INDEX effects_latest ON effects (shop_id, strategy_id, metric, as_of);
