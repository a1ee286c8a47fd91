#!/usr/bin/env bash
# A role and a database for each server, that of the same name. Passwords: no quotes, and nothing that a URL reserves.
set -euo pipefail
for name in prefect mlflow; do
  password_of="${name^^}_DB_PASSWORD"
  psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" \
    --set name="$name" --set password="${!password_of}" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
