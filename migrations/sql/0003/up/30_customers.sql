-- What an order consists of. A line belongs to the order's newest snapshot; instants are shop time.
ALTER TABLE orders
  ADD COLUMN name text,                              -- what people call it: #1001
  ADD COLUMN financial_status text,
  ADD COLUMN fulfillment_status text,
  ADD COLUMN tax_minor bigint NOT NULL DEFAULT 0,
  ADD COLUMN shipping_minor bigint NOT NULL DEFAULT 0,
  ADD COLUMN presentment_currency char(3),           -- what the buyer was shown; amounts here are the shop's
  ADD COLUMN deleted_at timestamptz,                 -- the shop deleted it: it counts as cancelled
  ADD COLUMN digest uuid,                            -- of the snapshot: settles which of one instant stands
  ADD COLUMN customer_at timestamptz,                -- of the newest snapshot that named its customer
  ADD COLUMN paid_event_id uuid;                     -- the event by which it was paid first; NULL: event_id

-- The newest snapshot of an order that was never paid, so that it stands should it be paid. Test orders stay here.
CREATE TABLE unpaid_orders (
  shop_id         uuid NOT NULL,
  source_order_id text NOT NULL,
  updated_at      timestamptz NOT NULL,              -- shop time
  digest          uuid NOT NULL,
  event_id        uuid NOT NULL,
  customer_id     uuid,                              -- NULL: a guest
  customer_at     timestamptz,
  snapshot        jsonb NOT NULL,                    -- customers.snapshots.Snapshot
  PRIMARY KEY (shop_id, source_order_id)
);
CREATE INDEX unpaid_orders_customer ON unpaid_orders (shop_id, customer_id);

ALTER TABLE identities
  ADD COLUMN told_at timestamptz,                    -- of a Shopify id: its newest customer.identified, shop time
  ADD COLUMN deleted_at timestamptz;                 -- of a Shopify id: the shop deleted this record

CREATE TABLE order_lines (
  shop_id          uuid NOT NULL,
  source_order_id  text NOT NULL,
  line_id          text NOT NULL,                    -- the source's, or the line's position in the order
  product_id       text,
  variant_id       text,
  sku              text,
  title            text,
  quantity         integer NOT NULL,
  current_quantity integer,                          -- after removals and returns; NULL: not told
  unit_minor       numeric(20,6),                    -- price of one in minor units; a fraction where the source has one
  discount_minor   bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (shop_id, source_order_id, line_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
CREATE INDEX order_lines_by_product ON order_lines (shop_id, product_id) WHERE product_id IS NOT NULL;
