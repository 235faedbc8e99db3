-- name: who
-- What somebody did, by table and action.
select schema_name, table_name, action, count(*), pg_catalog.to_char(min(created_at) at time zone 'UTC', {iso}),
       pg_catalog.to_char(max(created_at) at time zone 'UTC', {iso})
  from {schema}.audit_logs
 where {conditions}
 group by 1, 2, 3
 order by 4 desc, 1, 2, 3

-- name: who_when
-- The same by hour or day.
select pg_catalog.to_char(pg_catalog.date_trunc(%(unit)s, created_at at time zone 'UTC'), {iso}), count(*)
  from {schema}.audit_logs
 where {conditions}
 group by 1
 order by 1

-- name: iso
'YYYY-MM-DD"T"HH24:MI:SS"Z"'

-- name: nobody
-- What nobody is named for, by what is known of who wrote it.
select schema_name, table_name, action, db_user, application_name, count(*),
       pg_catalog.to_char(min(created_at) at time zone 'UTC', {iso}),
       pg_catalog.to_char(max(created_at) at time zone 'UTC', {iso}),
       (pg_catalog.array_agg(distinct xid order by xid desc))[1:3]
  from {schema}.audit_logs
 where user_id is null and user_email is null and (context is null or context_trust = 'none')
   and context_trust in ('none', 'signed', 'asserted') and action not in ('DDL', 'SNAPSHOT', 'CONTEXT', 'SELECT', 'READ_GAP')
   and {conditions}
 group by 1, 2, 3, 4, 5
 order by 6 desc, 1, 2, 3

-- name: arrived
-- The row that cdc-audit context check has written.
select user_id, context_trust, db_user, application_name
  from {schema}.audit_logs
 where {conditions}
 limit 1
