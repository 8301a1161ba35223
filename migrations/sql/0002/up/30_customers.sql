-- A saved condition over customers, and who meets it. Evaluated by the rules' own evaluator, never in SQL.
CREATE TABLE segments (
  shop_id      uuid NOT NULL,
  id           uuid NOT NULL,
  key          text NOT NULL,                -- what conditions say: segment.<key>
  name         jsonb NOT NULL,               -- {"en": ..., "zh": ...}
  definition   jsonb NOT NULL,               -- a condition of rules.condition, canonical
  version      integer NOT NULL DEFAULT 1,   -- of the definition
  state        text NOT NULL CHECK (state IN ('active', 'archived')),
  created_at   timestamptz NOT NULL,
  created_by   text NOT NULL,
  updated_at   timestamptz NOT NULL,
  -- shop time as of which everybody was last held against it; NULL: not yet, so nobody is said to have entered it
  refreshed_at timestamptz,
  size         bigint,                       -- members at refreshed_at
  PRIMARY KEY (shop_id, id),
  UNIQUE (shop_id, key)
);

-- One row for everybody who is or was a member: since when, and when they left.
CREATE TABLE segment_members (
  shop_id     uuid NOT NULL,
  customer_id uuid NOT NULL,
  segment_id  uuid NOT NULL,
  since       timestamptz NOT NULL,          -- shop time it entered last
  left_at     timestamptz,                   -- shop time it left; NULL: a member
  as_of       timestamptz NOT NULL,          -- shop time of the facts it moved by: older facts move it no more
  PRIMARY KEY (shop_id, customer_id, segment_id),
  FOREIGN KEY (shop_id, segment_id) REFERENCES segments (shop_id, id)
) WITH (fillfactor = 90);
CREATE INDEX segment_members_now ON segment_members (shop_id, segment_id, customer_id) WHERE left_at IS NULL;
