CREATE TABLE outcomes (                     -- an event attributed to an action
  shop_id     uuid NOT NULL,
  action_id   uuid NOT NULL,
  event_id    uuid NOT NULL,
  kind        text NOT NULL,                -- 'delivered', 'opened', 'clicked', 'redeemed', 'ordered', 'unsubscribed', 'bounced', 'dropped', 'complained'
  customer_id uuid NOT NULL,
  strategy_id uuid NOT NULL,
  occurred_at timestamptz NOT NULL,         -- shop time
  value_minor bigint NOT NULL DEFAULT 0,    -- 'ordered': what was paid; 'redeemed': the discount
  PRIMARY KEY (shop_id, action_id, event_id, kind)
);
CREATE INDEX outcomes_strategy ON outcomes (shop_id, strategy_id, kind);

-- Profit = margin - discount - message cost - refunds; signed, one row per cause. The rows of an order are a function
-- of the order and its changes (feedback.ledger.lines), so whatever arrives first, the rows end up the same.
CREATE TABLE ledger (
  shop_id      uuid NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('margin', 'discount', 'message_cost', 'refund')),
  source_id    text NOT NULL,               -- the order, 'order/refund' or the action it comes from
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
  metric      text NOT NULL CHECK (metric IN ('orders', 'revenue', 'profit', 'spend', 'roi')),
  as_of       timestamptz NOT NULL,         -- shop time
  computed_at timestamptz NOT NULL,         -- system time
  treated     bigint NOT NULL,
  held_out    bigint NOT NULL,
  -- total increment over the treated (orders, or minor units); 'roi': profit per unit spent. NULL with a reason
  estimate    double precision,
  lower       double precision,
  upper       double precision,
  reason      text,
  detail      jsonb NOT NULL,
  PRIMARY KEY (shop_id, id),
  CHECK ((estimate IS NULL) = (reason IS NOT NULL))
);
CREATE INDEX effects_latest ON effects (shop_id, strategy_id, metric, as_of);
