-- name: version
select max(version) from {schema}.schema_version

-- name: last_block
select block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn::text, end_lsn::text,
       coalesce(last_commit_at::text, ''), written_at::text, rows_root, prev_hash, coalesce(detail::text, ''),
       coalesce(key_id, ''), block_hash
  from {schema}.ledger
 order by block desc
 limit 1

-- name: details
select block, kind, coalesce(detail, '{{}}') from {schema}.ledger where kind = any(%s) order by block

-- name: append
insert into {schema}.ledger (block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn, end_lsn,
                             last_commit_at, written_at, rows_root, prev_hash, detail, key_id, block_hash, signature)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: erase
-- Append an erasure block, and erase what it names.
select {schema}.erase(row(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)::{schema}.ledger)

-- name: now
select clock_timestamp()::text

-- name: copy_rows
copy {schema}.audit_logs (id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields,
                          user_id, user_email, ip_address, user_agent, context, context_trust, db_user,
                          application_name, capture, unchanged_toast, partition_name, xid, commit_lsn, seq, row_hash)
from stdin

-- name: store
-- Few rows and their block's header. Statements of one WITH are done or not together.
with rows as (
    insert into {schema}.audit_logs (id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields,
                                     user_id, user_email, ip_address, user_agent, context, context_trust, db_user,
                                     application_name, capture, unchanged_toast, partition_name, xid, commit_lsn, seq, row_hash)
    values {rows}
)
insert into {schema}.ledger (block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn, end_lsn,
                             last_commit_at, written_at, rows_root, prev_hash, detail, key_id, block_hash, signature)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)

-- name: copy_openings
copy {schema}.personal_values (id, part, field, commitment, salt, value) from stdin

-- name: ensure_partition
select {schema}.ensure_partition(%s::date)

-- name: try_lock
select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('cdc-audit ledger ' || %s, 0))

-- name: ping
select 1

-- name: is_at_work
-- Whether a backend does something, waits for a lock, a disk or a standby; not for its client. And how many bytes it has taken in of an
-- open COPY: through a slow network it waits for its client most of the time. No row: it has ended.
select wait_event_type is distinct from 'Client',
       (select bytes_processed from pg_catalog.pg_stat_progress_copy as copy where copy.pid = backend.pid)
from pg_catalog.pg_stat_activity as backend
where pid = %s

-- name: settings
select pg_catalog.set_config('synchronous_commit', 'on', false), pg_catalog.set_config('lock_timeout', '0', false),
       pg_catalog.set_config('statement_timeout', '0', false),
       pg_catalog.set_config('idle_in_transaction_session_timeout', '0', false)

-- name: session
select pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('cdc_audit.session', true), pid, backend_start::text
from pg_catalog.pg_stat_activity
where pid = pg_catalog.pg_backend_pid()

-- name: end_backend
-- Whether it has ended: false for one that is at work. One that commits is never ended: a COMMIT that is broken off while it waits
-- for a synchronous standby counts on one server only.
select case when wait_event_type in ('Client', 'Lock') then pg_catalog.pg_terminate_backend(pid, 1000) else false end
from pg_catalog.pg_stat_activity
where pid = %s and backend_start = %s::timestamptz and usename = current_user
