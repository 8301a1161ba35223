-- One question to people: may this, exactly as it is now (`fingerprint`), go ahead? Something else under the same
-- subject is another question: the old row becomes 'superseded' and keeps its votes.
CREATE TABLE approvals (
  shop_id      uuid NOT NULL,
  id           uuid NOT NULL,
  kind         text NOT NULL CHECK (kind IN ('action', 'campaign', 'strategy')),
  subject      text NOT NULL,
  fingerprint  text NOT NULL,
  state        text NOT NULL DEFAULT 'pending'
                 CHECK (state IN ('pending', 'granted', 'rejected', 'expired', 'superseded')),
  needed       smallint NOT NULL CHECK (needed >= 1),
  why          jsonb NOT NULL,               -- [{"rule": "percent_above", "limit": 20, "found": 30}, ...]
  requested_by text NOT NULL,
  authors      text[] NOT NULL DEFAULT '{}', -- whoever else made it: none of them may vote either
  requested_at timestamptz NOT NULL,         -- system time, as all times here
  expires_at   timestamptz NOT NULL,
  settled_at   timestamptz,
  granted_at   timestamptz,                  -- stays when a later question supersedes this one
  CHECK (state <> 'granted' OR granted_at IS NOT NULL),
  CHECK (state = 'pending' OR settled_at IS NOT NULL),
  PRIMARY KEY (shop_id, id)
);
CREATE UNIQUE INDEX approvals_current ON approvals (shop_id, kind, subject) WHERE state <> 'superseded';
CREATE INDEX approvals_pending ON approvals (shop_id, expires_at) WHERE state = 'pending';

CREATE TABLE approval_votes (                -- append-only
  shop_id     uuid NOT NULL,
  approval_id uuid NOT NULL,
  voter       text NOT NULL,
  verdict     text NOT NULL CHECK (verdict IN ('approve', 'reject')),
  comment     text NOT NULL DEFAULT '',
  at          timestamptz NOT NULL,
  PRIMARY KEY (shop_id, approval_id, voter),
  FOREIGN KEY (shop_id, approval_id) REFERENCES approvals (shop_id, id)
);

-- The last line behind operation_agent.approvals: nobody says yes to what is their own, nothing is granted by too few.
CREATE FUNCTION refuse_own_vote() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM approvals a WHERE a.shop_id = NEW.shop_id AND a.id = NEW.approval_id
             AND (a.requested_by = NEW.voter OR NEW.voter = ANY(a.authors))) THEN
    RAISE EXCEPTION 'own_vote' USING ERRCODE = 'check_violation', CONSTRAINT = 'approval_votes_not_own';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER approval_votes_not_own BEFORE INSERT OR UPDATE ON approval_votes
  FOR EACH ROW EXECUTE FUNCTION refuse_own_vote();

CREATE FUNCTION refuse_grant_by_too_few() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF (SELECT count(*) FROM approval_votes v
      WHERE v.shop_id = NEW.shop_id AND v.approval_id = NEW.id AND v.verdict = 'approve') < NEW.needed THEN
    RAISE EXCEPTION 'too_few_votes' USING ERRCODE = 'check_violation', CONSTRAINT = 'approvals_enough_votes';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER approvals_enough_votes BEFORE INSERT OR UPDATE ON approvals
  FOR EACH ROW WHEN (NEW.state = 'granted') EXECUTE FUNCTION refuse_grant_by_too_few();

-- Settings that asked for nothing, or for action types that never were, were taken until now; reading them is strict.
SELECT set_config('app.system', 'on', true);
WITH strict AS (
  SELECT id, jsonb_strip_nulls(jsonb_build_object(
      'above_minor', settings #> '{approval,above_minor}',
      'types', (SELECT jsonb_agg(t) FROM jsonb_array_elements(settings #> '{approval,types}') AS t
                WHERE t IN ('"email"', '"coupon"')))) AS approval
  FROM shops WHERE settings ? 'approval'
)
UPDATE shops s SET settings = CASE WHEN strict.approval = '{}' THEN s.settings - 'approval'
                              ELSE s.settings || jsonb_build_object('approval', strict.approval) END
FROM strict WHERE s.id = strict.id;
SELECT set_config('app.system', '', true);
