-- name: select
-- Times are spelled out in UTC and jsonb is left as its text, so that no client rounds or reformats them.
select id, pg_catalog.to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), schema_name, table_name, record_id,
       action, old_data::text, new_data::text, changed_fields, user_id, user_email, pg_catalog.abbrev(ip_address), user_agent,
       context::text, context_trust, db_user, application_name, capture, unchanged_toast, partition_name, xid,
       commit_lsn::text, seq, '\x' || pg_catalog.encode(row_hash, 'hex')
  from {schema}.audit_logs
 where {conditions}
 order by created_at desc, id desc
 limit %(limit)s

-- name: all
true

-- name: schema_name
schema_name = %(schema_name)s

-- name: table_name
table_name = %(table_name)s

-- name: record
record_id = %(record)s

-- name: user
(user_id = %(user)s or user_email = %(user)s)

-- name: action
pg_catalog.upper(action) = pg_catalog.upper(%(action)s)

-- name: field
%(field)s = any (changed_fields)

-- name: since
created_at >= %(since)s

-- name: until
created_at < %(until)s

-- name: xid
xid = %(xid)s

-- name: prefer_indexes
-- Of a Bloom index the planner expects little, and would at times rather read everything; and it takes it that only the first rows
-- of a cursor are wanted, although limit says how many.
select pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('cursor_tuple_fraction', '1', true)
