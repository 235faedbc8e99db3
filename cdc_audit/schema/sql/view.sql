-- name: lock
select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('cdc-audit schema migrate', 0))

-- name: state
-- Whether there is a trail in a schema; whether that schema is there; whether anything else than this view is in it.
select pg_catalog.to_regclass(pg_catalog.format('%%I.ledger', %(schema)s::text)) is not null,
       n.oid is not null,
       exists (select from pg_catalog.pg_class as c where c.relnamespace = n.oid and (c.relname <> 'audit_logs' or c.relkind <> 'v'))
  from (select 1) as one
  left join pg_catalog.pg_namespace as n on n.nspname = %(schema)s

-- name: ledgers
-- Of which cluster, database and slot each trail is, as its first block says.
select system_identifier, detail ->> 'database', slot from {schema}.ledger order by block limit 1

-- name: create_schema
create schema if not exists {view} authorization audit_owner

-- name: drop_view
drop view if exists {view}.audit_logs

-- name: view
-- A transaction's rows have its xid and commit_lsn in every ledger; ids and seq count within a ledger.
create view {view}.audit_logs as
{parts}

-- name: part
select {schema_name}::text as ledger, id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields,
       user_id, user_email, ip_address, user_agent, context, context_trust, db_user, application_name, capture, unchanged_toast,
       partition_name, xid, commit_lsn, seq, row_hash
  from {schema}.audit_logs

-- name: and_all
union all

-- name: readers
grant usage on schema {view} to audit_admin

-- name: read
grant select on {view}.audit_logs to audit_admin
