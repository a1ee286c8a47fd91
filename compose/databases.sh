#!/usr/bin/env bash
# Creates a role and a database with the name of each server. Passwords must not have quotes or characters that a URL reserves.
set -euo pipefail
for name in prefect mlflow; do
  password_of="${name^^}_DB_PASSWORD"
  psql --set ON_ERROR_STOP=1 --username "${POSTGRES_USER:-postgres}" \
    --set name="$name" --set password="${!password_of}" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
SQL
done
