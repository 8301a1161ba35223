CREATE TABLE customers (
  shop_id       uuid NOT NULL,
  id            uuid NOT NULL,
  -- where the customer stands in every holdout and draw: ids.digest_id(shop seed, kind, value) of its first
  -- identity; a merge keeps the surviving customer's
  random_key    uuid NOT NULL,
  external_id   text,                       -- the first identity of its kind; email and phone are where to write to
  shopify_id    text,
  email         text,
  phone         text,
  first_name    text,
  last_name     text,
  locale        text,
  time_zone     text,
  country       text,
  traits        jsonb NOT NULL DEFAULT '{}',
  trait_times   jsonb NOT NULL DEFAULT '{}', -- of each trait, when it was said (shop time): the newest saying wins
  first_seen_at timestamptz NOT NULL,       -- shop time
  last_seen_at  timestamptz NOT NULL,       -- shop time
  created_at    timestamptz NOT NULL,       -- system time
  merged_into   uuid,
  PRIMARY KEY (shop_id, id)
);
CREATE INDEX customers_live ON customers (shop_id, id) WHERE merged_into IS NULL;
CREATE INDEX customers_merged ON customers (shop_id, merged_into) WHERE merged_into IS NOT NULL;

CREATE TABLE identities (
  shop_id       uuid NOT NULL,
  kind          text NOT NULL CHECK (kind IN ('external', 'email', 'phone', 'shopify', 'anonymous')),
  value         text NOT NULL,
  customer_id   uuid NOT NULL,
  first_seen_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, kind, value)
);
CREATE INDEX identities_customer ON identities (shop_id, customer_id);

CREATE TABLE customer_merges (
  shop_id          uuid NOT NULL,
  from_customer_id uuid NOT NULL,
  into_customer_id uuid NOT NULL,
  event_id         uuid NOT NULL,           -- the fact that joined them
  merged_at        timestamptz NOT NULL,    -- shop time of that fact
  before           jsonb NOT NULL,          -- the merged customer, its identities, consents and assignments as they were
  PRIMARY KEY (shop_id, from_customer_id)
);

CREATE TABLE consents (
  shop_id     uuid NOT NULL,
  customer_id uuid NOT NULL,
  channel     text NOT NULL,                -- 'email', 'sms', ...
  topic       text NOT NULL,                -- 'marketing', 'transactional'
  state       text NOT NULL CHECK (state IN ('subscribed', 'unsubscribed')),
  changed_at  timestamptz NOT NULL,         -- shop time
  event_id    uuid NOT NULL,
  PRIMARY KEY (shop_id, customer_id, channel, topic)
);

CREATE TABLE consent_changes (              -- append-only history of the row above
  shop_id     uuid NOT NULL,
  customer_id uuid NOT NULL,
  channel     text NOT NULL,
  topic       text NOT NULL,
  state       text NOT NULL,
  changed_at  timestamptz NOT NULL,
  event_id    uuid NOT NULL,
  PRIMARY KEY (shop_id, customer_id, channel, topic, event_id)
);

CREATE TABLE suppressions (                 -- of an address, whoever holds it
  shop_id    uuid NOT NULL,
  channel    text NOT NULL,
  address    text NOT NULL,
  reason     text NOT NULL,                 -- 'bounced', 'complained', 'unsubscribed', 'operator'
  created_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, channel, address)
);

-- What features are made of: one narrow row per event that says something about a customer.
CREATE TABLE timeline (
  shop_id      uuid NOT NULL,
  customer_id  uuid NOT NULL,
  occurred_at  timestamptz NOT NULL,        -- shop time
  event_id     uuid NOT NULL,
  type         text NOT NULL,
  product_id   text,
  amount_minor bigint,                      -- of the shop's currency
  -- with what features read, so that both one customer and everyone are read from the index alone, in order
  PRIMARY KEY (shop_id, customer_id, occurred_at, event_id) INCLUDE (type, product_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);

CREATE TABLE orders (
  shop_id         uuid NOT NULL,
  id              uuid NOT NULL,
  source_order_id text NOT NULL,
  customer_id     uuid,                     -- NULL: a guest
  ordered_at      timestamptz NOT NULL,     -- shop time
  currency        char(3) NOT NULL,
  total_minor     bigint NOT NULL CHECK (total_minor >= 0),     -- what was paid, after discounts
  discount_minor  bigint NOT NULL DEFAULT 0 CHECK (discount_minor >= 0),
  refunded_minor  bigint NOT NULL DEFAULT 0 CHECK (refunded_minor >= 0),
  quantity        integer NOT NULL DEFAULT 1,
  discount_codes  text[] NOT NULL DEFAULT '{}',
  cancelled_at    timestamptz,
  updated_at      timestamptz NOT NULL,     -- shop time of the event whose amounts these are: the newest
  event_id        uuid NOT NULL,
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, source_order_id)
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
-- Vacuumed early, here and in timeline: reading from an index alone needs pages known to be visible to all.
CREATE INDEX orders_customer ON orders (shop_id, customer_id, ordered_at)
  INCLUDE (total_minor, discount_minor, quantity, cancelled_at);

-- What befell an order after it was paid. Kept beside the order, not in it: a refund may arrive before its order,
-- and features as of a moment count only what had happened by then. orders.refunded_minor and cancelled_at follow.
CREATE TABLE order_changes (
  shop_id         uuid NOT NULL,
  source_order_id text NOT NULL,
  kind            text NOT NULL CHECK (kind IN ('refunded', 'cancelled')),
  change_id       text NOT NULL,            -- the source's refund id, so that two reports of one refund count once
  occurred_at     timestamptz NOT NULL,     -- shop time
  amount_minor    bigint NOT NULL DEFAULT 0 CHECK (amount_minor >= 0),
  event_id        uuid NOT NULL,
  PRIMARY KEY (shop_id, source_order_id, kind, change_id)
);

-- The features of a customer as of the last event or refresh. Column list = customers.features.FEATURES.
CREATE TABLE customer_features (
  shop_id                 uuid NOT NULL,
  customer_id             uuid NOT NULL,
  as_of                   timestamptz NOT NULL,
  orders                  integer NOT NULL,
  revenue_minor           bigint NOT NULL,
  average_order_minor     double precision,
  days_since_order        double precision,
  days_since_first_order  double precision,
  interpurchase_days      double precision,
  discount_share          double precision,
  return_share            double precision,
  quantity                integer NOT NULL,
  views_7d                integer NOT NULL,
  views_30d               integer NOT NULL,
  products_viewed_7d      integer NOT NULL,
  repeat_views_7d         integer NOT NULL,
  searches_7d             integer NOT NULL,
  carts_7d                integer NOT NULL,
  checkouts_7d            integer NOT NULL,
  days_since_view         double precision,
  days_since_cart         double precision,
  days_since_search       double precision,
  open_cart               boolean NOT NULL,
  messages_30d            integer NOT NULL,
  opens_30d               integer NOT NULL,
  clicks_30d              integer NOT NULL,
  purchase_stage          text NOT NULL,
  price_sensitivity       text,
  engagement_level        text NOT NULL,
  PRIMARY KEY (shop_id, customer_id)
);
