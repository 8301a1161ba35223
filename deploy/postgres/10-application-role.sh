#!/bin/bash
# Runs once, on an empty database cluster: the application's role, which row-level security binds, and its database.
set -euo pipefail
psql --set ON_ERROR_STOP=1 --set password="$POSTGRES_PASSWORD" --username postgres <<'SQL'
CREATE ROLE opagent LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB PASSWORD :'password';
CREATE DATABASE opagent OWNER opagent ENCODING 'UTF8' TEMPLATE template0;
SQL
