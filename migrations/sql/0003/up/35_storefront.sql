-- The shop's own things, as its storefront tells of them. operation_agent/storefront/records.py lists the same columns; a
-- test holds the two together. Whatever the order of arrival, the rows end up the same: of each column the newest saying
-- stands (time, then digest of the telling). Instants are shop time. In every table
--   source_updated_at, digest   the newest telling; NULL: the thing was only ever listed or deleted
--   told         {column: [time, digest] | null}: whose telling is another than the row's; null: never told
--   listed_at    the newest list of all its parent's things that has it
--   removed_at   the storefront said that it was deleted
--   deleted_at   it is gone (follows from the others and from storefront_listings): since then, or last heard of then
CREATE TABLE products (
  shop_id uuid NOT NULL, product_id text NOT NULL,
  title text, handle text, vendor text, product_type text, status text, tags text[],
  seo_title text, seo_description text, image_url text, published_at timestamptz,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, product_id)
);
CREATE TABLE variants (
  shop_id uuid NOT NULL, variant_id text NOT NULL, product_id text,
  title text, sku text, barcode text, price_minor bigint, compare_at_minor bigint, position integer,
  inventory_item_id text, inventory_quantity integer, inventory_policy text,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, variant_id)
);
CREATE INDEX variants_by_product ON variants (shop_id, product_id);
CREATE INDEX variants_by_sku ON variants (shop_id, lower(sku)) WHERE sku IS NOT NULL;
CREATE INDEX variants_by_item ON variants (shop_id, inventory_item_id);
CREATE TABLE inventory_levels (
  shop_id uuid NOT NULL, inventory_item_id text NOT NULL, location_id text NOT NULL,
  available integer,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, inventory_item_id, location_id)
);
CREATE TABLE collections (
  shop_id uuid NOT NULL, collection_id text NOT NULL,
  title text, handle text, sort_order text, is_automatic boolean, published_at timestamptz,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, collection_id)
);
CREATE TABLE collection_products (
  shop_id uuid NOT NULL, collection_id text NOT NULL, product_id text NOT NULL,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, collection_id, product_id)
);
CREATE TABLE discounts (
  shop_id uuid NOT NULL, discount_id text NOT NULL,
  title text, status text, method text, kind text, starts_at timestamptz, ends_at timestamptz,
  usage_limit integer, used integer,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, discount_id)
);
CREATE TABLE discount_codes (
  shop_id uuid NOT NULL, discount_id text NOT NULL, code text NOT NULL,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, discount_id, code)
);
CREATE INDEX discount_codes_by_code ON discount_codes (shop_id, lower(code));
CREATE TABLE fulfillments (
  shop_id uuid NOT NULL, fulfillment_id text NOT NULL, source_order_id text,
  status text, shipment_status text, tracking_company text, tracking_numbers text[],
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, fulfillment_id)
);
CREATE INDEX fulfillments_by_order ON fulfillments (shop_id, source_order_id);
CREATE TABLE carts (
  shop_id uuid NOT NULL, cart_token text NOT NULL,
  value_minor bigint, quantity integer, lines jsonb,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, cart_token)
);
CREATE TABLE checkouts (
  shop_id uuid NOT NULL, checkout_token text NOT NULL,
  cart_token text, source_customer_id text, value_minor bigint, quantity integer, lines jsonb,
  recovery_url text, started_at timestamptz, completed_at timestamptz,
  source_updated_at timestamptz, digest uuid, told jsonb NOT NULL DEFAULT '{}',
  listed_at timestamptz, removed_at timestamptz, deleted_at timestamptz,
  PRIMARY KEY (shop_id, checkout_token)
);
CREATE INDEX checkouts_by_customer ON checkouts (shop_id, source_customer_id);
CREATE INDEX checkouts_by_cart ON checkouts (shop_id, cart_token) WHERE cart_token IS NOT NULL;
CREATE TABLE storefront_listings (                   -- when a parent's things were last listed in full
  shop_id uuid NOT NULL, kind text NOT NULL, parent text NOT NULL, listed_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, kind, parent)
);

-- What the storefront said last of the shop itself: {at, name, time_zone, currency}. The shop follows it in what nobody
-- set by hand (storefront.shop_record).
ALTER TABLE shops ADD COLUMN storefront jsonb NOT NULL DEFAULT '{}';

CREATE TABLE storefront_syncs (                      -- a load of one kind of thing from the shop
  shop_id uuid NOT NULL, id uuid NOT NULL,
  vendor text NOT NULL, kind text NOT NULL,          -- orders, customers, products, inventory, collections, discounts
  mode text NOT NULL CHECK (mode IN ('first', 'incremental', 'reconcile')),
  state text NOT NULL CHECK (state IN ('asked', 'running', 'loading', 'done', 'failed', 'cancelled')),
  since timestamptz,                                 -- changed since then, shop time; NULL: everything
  operation_id text, url text, url_at timestamptz,   -- the shop's own bulk operation and its result file
  objects_total bigint, objects_done bigint NOT NULL DEFAULT 0,
  bytes_total bigint, bytes_done bigint NOT NULL DEFAULT 0,
  missing bigint NOT NULL DEFAULT 0, stale bigint NOT NULL DEFAULT 0, refused bigint NOT NULL DEFAULT 0,
  events bigint NOT NULL DEFAULT 0, tellings bigint NOT NULL DEFAULT 0,    -- what was new and is stored
  first_refusals jsonb NOT NULL DEFAULT '[]',        -- [{key, reason}], the first 50
  error text, error_code text, attempts integer NOT NULL DEFAULT 0,        -- in a row, without getting on
  exports integer NOT NULL DEFAULT 0,                -- asked of the storefront
  wake_at timestamptz,                               -- system time; NULL: it has ended
  cancel_by text,                                    -- who wants it to end; the worker ends it
  actor text NOT NULL,
  asked_at timestamptz NOT NULL, started_at timestamptz, loading_at timestamptz, updated_at timestamptz NOT NULL,
  finished_at timestamptz,
  PRIMARY KEY (shop_id, id)
);
CREATE UNIQUE INDEX storefront_syncs_open ON storefront_syncs (shop_id, vendor, kind)
  WHERE state IN ('asked', 'running', 'loading');    -- one of a kind at a time
CREATE INDEX storefront_syncs_by_kind ON storefront_syncs (shop_id, vendor, kind, id);

CREATE TABLE shop_changes (                          -- what was changed at the shop by us, and how to take it back
  shop_id uuid NOT NULL, id uuid NOT NULL,
  vendor text NOT NULL, kind text NOT NULL, subject text NOT NULL, parameters jsonb NOT NULL,
  state text NOT NULL CHECK (state IN
    ('asked', 'previewed', 'applying', 'applied', 'undoing', 'undone', 'refused', 'unknown', 'cancelled')),
  apply_asked boolean NOT NULL DEFAULT false,        -- goes on after its preview by itself
  force boolean NOT NULL DEFAULT false,              -- take it back whatever stands there now
  before jsonb, after jsonb, warnings jsonb NOT NULL DEFAULT '[]', ref text,
  undo jsonb, why_no_undo text,
  reason text, reason_code text, errors jsonb NOT NULL DEFAULT '[]',
  fence bigint NOT NULL DEFAULT 0, lease_until timestamptz, retry_at timestamptz, attempts integer NOT NULL DEFAULT 0,
  actor text NOT NULL, asked_at timestamptz NOT NULL, applied_at timestamptz, undone_at timestamptz,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, id)
);
CREATE INDEX shop_changes_by_subject ON shop_changes (shop_id, subject, id);
CREATE INDEX shop_changes_due ON shop_changes (shop_id, retry_at) WHERE state IN ('asked', 'applying', 'undoing', 'unknown');
