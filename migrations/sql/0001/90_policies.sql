-- Monthly partitions are made ahead by the scheduler; a default one catches what comes before it has run.
CREATE FUNCTION ensure_partition(parent text, month date) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  first date := date_trunc('month', month)::date;
  child text := parent || '_' || to_char(first, 'YYYYMM');
BEGIN
  IF to_regclass(child) IS NULL THEN
    EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES FROM (%L) TO (%L)',
                   child, parent, first::timestamp AT TIME ZONE 'UTC', (first + interval '1 month') AT TIME ZONE 'UTC');
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', child);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', child);
    EXECUTE format('CREATE POLICY tenant ON %I USING (shop_id = (SELECT app_shop()))', child);
  END IF;
  RETURN child;
END $$;

CREATE TABLE events_default PARTITION OF events DEFAULT;
CREATE TABLE decisions_default PARTITION OF decisions DEFAULT;

DO $$
DECLARE
  t text;
  rule text;
BEGIN
  FOR t IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND c.relname <> 'alembic_version'
  LOOP
    rule := CASE
      WHEN t IN ('users', 'sessions', 'heartbeats') THEN '(SELECT app_system())'
      WHEN t = 'shops' THEN 'id = (SELECT app_shop()) OR (SELECT app_system())'
      WHEN t IN ('api_keys', 'outbox', 'schedule_ticks') THEN 'shop_id = (SELECT app_shop()) OR (SELECT app_system())'
      ELSE 'shop_id = (SELECT app_shop())'
    END;
    EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', t);
    EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', t);
    EXECUTE format('CREATE POLICY tenant ON %I USING (%s)', t, rule);
  END LOOP;
END $$;
