DROP TABLE execution_days;
DROP TRIGGER budgets_recount ON budgets;
DROP FUNCTION recount_budget_customers;
DROP TABLE budget_customers;
DROP TABLE budget_days;
DROP INDEX budget_entries_budget;
ALTER TABLE budget_entries DROP COLUMN day, DROP COLUMN customer_id;
ALTER TABLE budgets DROP COLUMN daily_minor, DROP COLUMN per_customer_minor;
DROP INDEX actions_of_approval;
DROP INDEX actions_of_run;
DROP INDEX actions_of_campaign;
ALTER TABLE actions DROP COLUMN tags, DROP COLUMN counted, DROP COLUMN held_back, DROP COLUMN stale_at,
  DROP COLUMN claimed_at, DROP COLUMN run_id, DROP COLUMN campaign_id, DROP COLUMN approval_id;
