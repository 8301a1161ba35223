DROP TABLE pool_codes, code_pools, oauth_states;
DELETE FROM coupons WHERE percent IS NULL;
ALTER TABLE coupons ALTER COLUMN percent SET NOT NULL;
ALTER TABLE coupons DROP COLUMN offer, DROP COLUMN terms, DROP COLUMN discount_ref, DROP COLUMN deactivated_at;
ALTER TABLE integrations
  DROP COLUMN problem, DROP COLUMN problem_detail, DROP COLUMN problem_at, DROP COLUMN scopes,
  DROP COLUMN token_expires_at, DROP COLUMN renew_at, DROP COLUMN check_at, DROP COLUMN checked_at,
  DROP COLUMN subscriptions;
