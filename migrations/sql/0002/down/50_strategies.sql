-- What 0001 knows stays: each strategy with the definition and the rules that count. A draft beside a live version, and
-- the older definitions, are lost. A rule that is switched off must not come alive: it is retired.
DROP TABLE strategy_versions;
ALTER TABLE strategies DROP COLUMN live_revision;
DROP INDEX rules_strategy;
ALTER TABLE rules NO FORCE ROW LEVEL SECURITY;
ALTER TABLE strategies NO FORCE ROW LEVEL SECURITY;
DELETE FROM rules AS r USING strategies AS s
WHERE r.state = 'draft' AND s.shop_id = r.shop_id AND s.id = r.strategy_id AND s.state <> 'draft';
UPDATE rules SET state = 'retired' WHERE state = 'disabled';
ALTER TABLE strategies FORCE ROW LEVEL SECURITY;
ALTER TABLE rules FORCE ROW LEVEL SECURITY;
ALTER TABLE rules DROP CONSTRAINT rules_state_check;
ALTER TABLE rules ADD CONSTRAINT rules_state_check CHECK (state IN ('draft', 'live', 'retired'));
