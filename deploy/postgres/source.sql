-- The daemon's role in the source, and all that it needs. As a superuser, in the database whose changes are audited:
--   psql -d shop -f source.sql
-- Set its password with \password cdc_audit, so that it stands in no file and in no log.
-- `cdc-audit init` adds what it may read: cdc_audit.context_key, the keys that contexts are checked with. No table of yours.
\set ON_ERROR_STOP on

create role cdc_audit login replication connection limit 10;
grant connect on database :"DBNAME" to cdc_audit;

-- Minors from August 2026 on (18.6, 17.11, 16.15, 15.19, 14.24) refuse plugins that are not named; older ones don't know the setting.
select exists (select from pg_settings where name = 'output_plugin_libraries') as must_name_plugins \gset
\if :must_name_plugins
    alter role cdc_audit set output_plugin_libraries = pgoutput, wal2json;
\endif
