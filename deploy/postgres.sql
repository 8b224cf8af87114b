-- Runs once, when a network's PostgreSQL starts on an empty volume. Airlock and Temporal each own their databases and
-- cannot read the other's. Passwords come from secret files, so none is in an argument list or an environment.
\set ON_ERROR_STOP on
\set airlock_password `cat /run/secrets/airlock_password`
\set temporal_password `cat /run/secrets/temporal_password`

CREATE ROLE airlock LOGIN PASSWORD :'airlock_password';
CREATE ROLE temporal LOGIN PASSWORD :'temporal_password';

CREATE DATABASE airlock OWNER airlock;
CREATE DATABASE temporal OWNER temporal;
CREATE DATABASE temporal_visibility OWNER temporal;

REVOKE CONNECT, TEMPORARY ON DATABASE airlock, temporal, temporal_visibility FROM PUBLIC;
