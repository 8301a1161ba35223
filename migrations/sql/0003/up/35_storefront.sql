-- The shop's own things, as its storefront tells of them. The newest telling stands (source_updated_at, then digest, so
-- that the order of arrival never matters); deleted is for ever, since ids are not used again. Instants are shop time.
-- operation_agent/storefront/records.py lists the same columns; a test holds the two together.
CREATE TABLE products (
  shop_id uuid NOT NULL, product_id text NOT NULL,
  title text, handle text, vendor text, product_type text, status text, tags text[] NOT NULL DEFAULT '{}',
  seo_title text, seo_description text, image_url text, published_at timestamptz,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, product_id)
);
CREATE TABLE variants (
  shop_id uuid NOT NULL, variant_id text NOT NULL, product_id text,
  title text, sku text, barcode text, price_minor bigint, compare_at_minor bigint, position integer,
  inventory_item_id text, inventory_quantity integer, inventory_policy text,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, variant_id)
);
CREATE INDEX variants_by_product ON variants (shop_id, product_id);
CREATE INDEX variants_by_item ON variants (shop_id, inventory_item_id);
CREATE TABLE inventory_levels (
  shop_id uuid NOT NULL, inventory_item_id text NOT NULL, location_id text NOT NULL,
  available integer,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, inventory_item_id, location_id)
);
CREATE TABLE collections (
  shop_id uuid NOT NULL, collection_id text NOT NULL,
  title text, handle text, sort_order text, is_automatic boolean, published_at timestamptz,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, collection_id)
);
CREATE TABLE collection_products (
  shop_id uuid NOT NULL, collection_id text NOT NULL, product_id text NOT NULL,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, collection_id, product_id)
);
CREATE TABLE discounts (
  shop_id uuid NOT NULL, discount_id text NOT NULL,
  title text, status text, method text, kind text, starts_at timestamptz, ends_at timestamptz,
  usage_limit integer, used integer,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, discount_id)
);
CREATE TABLE discount_codes (
  shop_id uuid NOT NULL, discount_id text NOT NULL, code text NOT NULL,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, discount_id, code)
);
CREATE INDEX discount_codes_by_code ON discount_codes (shop_id, lower(code));
CREATE TABLE fulfillments (
  shop_id uuid NOT NULL, fulfillment_id text NOT NULL, source_order_id text,
  status text, shipment_status text, tracking_company text, tracking_numbers text[] NOT NULL DEFAULT '{}',
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, fulfillment_id)
);
CREATE INDEX fulfillments_by_order ON fulfillments (shop_id, source_order_id);
CREATE TABLE carts (
  shop_id uuid NOT NULL, cart_token text NOT NULL,
  value_minor bigint, quantity integer, lines jsonb NOT NULL DEFAULT '[]',
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, cart_token)
);
CREATE TABLE checkouts (
  shop_id uuid NOT NULL, checkout_token text NOT NULL,
  cart_token text, source_customer_id text, value_minor bigint, quantity integer, lines jsonb NOT NULL DEFAULT '[]',
  recovery_url text, started_at timestamptz, completed_at timestamptz,
  source_updated_at timestamptz NOT NULL, digest uuid NOT NULL, deleted_at timestamptz,
  PRIMARY KEY (shop_id, checkout_token)
);
CREATE INDEX checkouts_by_customer ON checkouts (shop_id, source_customer_id);
-- What is known of deletions that came before the thing itself, and of every kind alike.

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
  vendor text NOT NULL, kind text NOT NULL, parameters jsonb NOT NULL,
  state text NOT NULL CHECK (state IN
    ('asked', 'previewed', 'applying', 'applied', 'undoing', 'undone', 'refused', 'unknown', 'cancelled')),
  before jsonb, after jsonb, warnings jsonb NOT NULL DEFAULT '[]',
  undo jsonb, why_no_undo text, reason text, errors jsonb NOT NULL DEFAULT '[]',
  fence bigint NOT NULL DEFAULT 0, lease_until timestamptz, retry_at timestamptz,
  actor text NOT NULL, asked_at timestamptz NOT NULL, applied_at timestamptz, undone_at timestamptz,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, id)
);
CREATE INDEX shop_changes_due ON shop_changes (shop_id, retry_at) WHERE state IN ('asked', 'applying', 'undoing', 'unknown');
