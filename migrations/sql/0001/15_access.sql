CREATE TABLE users (
  id            uuid PRIMARY KEY,
  email         text NOT NULL CHECK (email = lower(email)),
  password_hash text NOT NULL,              -- argon2id
  created_at    timestamptz NOT NULL,
  disabled_at   timestamptz,
  UNIQUE (email)
);

CREATE TABLE sessions (
  token_hash bytea PRIMARY KEY,             -- the cookie's token is never stored
  user_id    uuid NOT NULL REFERENCES users (id),
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz
);

CREATE TABLE api_keys (
  id         uuid PRIMARY KEY,
  shop_id    uuid NOT NULL REFERENCES shops (id),
  name       text NOT NULL,
  prefix     text NOT NULL,                 -- its first characters, to recognise it by
  key_hash   bytea NOT NULL UNIQUE,
  scopes     text[] NOT NULL CHECK (cardinality(scopes) > 0),
  created_at timestamptz NOT NULL,
  revoked_at timestamptz
);

CREATE TABLE idempotency_keys (
  shop_id      uuid NOT NULL,
  key          text NOT NULL,
  request_hash bytea NOT NULL,              -- method, path and body: the same key for another request is a conflict
  status       smallint,                    -- NULL while the first request runs
  response     bytea,
  created_at   timestamptz NOT NULL,
  PRIMARY KEY (shop_id, key)
);
