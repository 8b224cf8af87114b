#!/bin/sh
# Creates or upgrades the tables of a network's Temporal server. Safe to repeat: setup-schema leaves a newer schema
# alone and update-schema applies only what is missing. The databases themselves are made by postgres.sql.
set -eu

SQL_PASSWORD="$(cat /run/secrets/temporal_password)"
export SQL_PASSWORD

upgrade() { # database, directory of its schema
    temporal-sql-tool --database "$1" setup-schema --version 0.0
    temporal-sql-tool --database "$1" update-schema --schema-dir "/etc/temporal/schema/postgresql/v12/$2/versioned"
}

upgrade temporal temporal
upgrade temporal_visibility visibility
