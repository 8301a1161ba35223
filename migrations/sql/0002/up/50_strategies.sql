-- Every version of a strategy's definition: at most one draft that people edit, at most one that counts.
CREATE TABLE strategy_versions (
  shop_id      uuid NOT NULL,
  strategy_id  uuid NOT NULL,
  version      integer NOT NULL CHECK (version >= 1),
  state        text NOT NULL CHECK (state IN ('draft', 'live', 'retired')),
  definition   jsonb NOT NULL,              -- canonical, as rules.strategy writes it
  created_at   timestamptz NOT NULL,        -- system time, as the two below
  created_by   text NOT NULL,
  edited_at    timestamptz NOT NULL,
  authors      text[] NOT NULL,             -- everybody who wrote at it as a draft: none of them may approve it
  published_at timestamptz,
  published_by text,
  note         text NOT NULL DEFAULT '',    -- why it was published
  CHECK (state <> 'live' OR published_at IS NOT NULL),
  PRIMARY KEY (shop_id, strategy_id, version),
  FOREIGN KEY (shop_id, strategy_id) REFERENCES strategies (shop_id, id)
);
CREATE UNIQUE INDEX strategy_versions_one_draft ON strategy_versions (shop_id, strategy_id) WHERE state = 'draft';
CREATE UNIQUE INDEX strategy_versions_one_live ON strategy_versions (shop_id, strategy_id) WHERE state = 'live';

-- `revision` now counts every change that people make, drafts too: who saves or publishes says which one they looked at.
-- Workers keep what is live by this one, which a draft does not touch
ALTER TABLE strategies ADD COLUMN live_revision integer NOT NULL DEFAULT 1;

-- a rule that is switched off stays the version that counts, and decides nothing
ALTER TABLE rules DROP CONSTRAINT rules_state_check;
ALTER TABLE rules ADD CONSTRAINT rules_state_check CHECK (state IN ('draft', 'live', 'disabled', 'retired'));
CREATE INDEX rules_strategy ON rules (shop_id, strategy_id);

-- what is there becomes version 1. The migration sees every shop's rows only as the tables' owner
ALTER TABLE strategies NO FORCE ROW LEVEL SECURITY;
ALTER TABLE rules NO FORCE ROW LEVEL SECURITY;
INSERT INTO strategy_versions (shop_id, strategy_id, version, state, definition, created_at, created_by, edited_at,
                               authors, published_at, published_by)
SELECT s.shop_id, s.id, 1, CASE s.state WHEN 'draft' THEN 'draft' WHEN 'archived' THEN 'retired' ELSE 'live' END,
       s.definition, s.created_at, a.author, s.updated_at, ARRAY[a.author],
       CASE WHEN s.state <> 'draft' THEN COALESCE(s.started_at, s.created_at) END,
       CASE WHEN s.state <> 'draft' THEN a.author END
FROM strategies AS s
CROSS JOIN LATERAL (
  SELECT COALESCE((SELECT r.created_by FROM rules AS r WHERE r.shop_id = s.shop_id AND r.strategy_id = s.id
                   ORDER BY r.version, r.id LIMIT 1), 'system') AS author
) AS a;
ALTER TABLE rules FORCE ROW LEVEL SECURITY;
ALTER TABLE strategies FORCE ROW LEVEL SECURITY;
