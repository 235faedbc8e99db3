-- name: rows
copy (select id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields, user_id,
             user_email, ip_address, user_agent, context, context_trust, db_user, application_name, capture,
             unchanged_toast, partition_name, xid, commit_lsn, seq, row_hash
        from {leaf}
       order by id, created_at)
to stdout

-- name: first_id
select first_id from {schema}.ledger where block = %s

-- name: last_block
select max(block) from {schema}.ledger

-- name: retirements
-- And purges of what they took out.
select block, kind, written_at, detail from {schema}.ledger where kind in ('retention', 'purge') order by block

-- name: stay
-- Until the end of the transaction no partition can be dropped, so a month is either here or, as the ledger says from now on, in its
-- archive.
lock table {schema}.audit_logs in access share mode

-- name: now
select pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp()::text

-- name: version
select max(version) from {schema}.schema_version

-- name: make_place
create schema if not exists {into}

-- name: make_table
-- Without the refusing triggers: what is restored is a copy.
create table if not exists {into}.audit_logs (like {schema}.audit_logs including indexes including comments)

-- name: forget
delete from {into}.audit_logs where id between %s and %s

-- name: load
copy {into}.audit_logs (id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields, user_id,
                        user_email, ip_address, user_agent, context, context_trust, db_user, application_name, capture,
                        unchanged_toast, partition_name, xid, commit_lsn, seq, row_hash)
from stdin
