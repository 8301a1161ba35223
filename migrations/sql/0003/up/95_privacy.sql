CREATE TABLE privacy_requests (                      -- somebody's right: to see, or to be forgotten
  shop_id uuid NOT NULL, id uuid NOT NULL,
  kind text NOT NULL CHECK (kind IN ('export', 'erase', 'erase_shop')),
  source text NOT NULL, source_id text NOT NULL,     -- who asked, and its own id of the request
  subject jsonb NOT NULL,                            -- identities; emptied once done
  state text NOT NULL CHECK (state IN ('asked', 'done', 'failed')),
  due_at timestamptz NOT NULL,                       -- by law
  result bytea,                                      -- of an export: sealed JSON, deleted after it was due
  proof jsonb,                                       -- counts by table and a digest, no personal data
  error text, asked_at timestamptz NOT NULL, done_at timestamptz,
  PRIMARY KEY (shop_id, id), UNIQUE (shop_id, source, source_id)
);
