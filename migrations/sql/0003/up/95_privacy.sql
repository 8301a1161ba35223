CREATE TABLE privacy_requests (                      -- somebody's right: to see, or to be forgotten
  shop_id uuid NOT NULL, id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('export', 'erase', 'erase_shop')),
  source text NOT NULL, source_id text NOT NULL,     -- who asked, and its own id of the request
  subject jsonb NOT NULL,                            -- identities; emptied once done
  state text NOT NULL CHECK (state IN ('asked', 'done', 'failed')),
  due_at timestamptz NOT NULL,                       -- by law; system time, as the others
  result bytea,                                      -- of an export: sealed JSON, deleted after a while
  proof jsonb,                                       -- counts by table, no personal data
  customers uuid[] NOT NULL DEFAULT '{}',            -- whom it was about: ids that may point to nobody by now
  error text, attempts integer NOT NULL DEFAULT 0,
  asked_at timestamptz NOT NULL, done_at timestamptz,
  PRIMARY KEY (shop_id, id), UNIQUE (shop_id, source, source_id)
);

-- A measured effect must not change because somebody was forgotten: the side of the shop-wide holdout stays, as the
-- draw cut to four digits, which some ten thousandth of all customers share.
CREATE TABLE forgotten (
  shop_id uuid NOT NULL, customer_id uuid NOT NULL,
  draw double precision NOT NULL, at timestamptz NOT NULL,
  PRIMARY KEY (shop_id, customer_id)
);
