-- name: by_user
-- Openings that are still there of the contexts of one user's rows: row, how many, and the schema of its table.
select a.id, count(*), min(a.schema_name)
  from {schema}.audit_logs as a
  join {schema}.personal_values as p on p.id = a.id
 where a.user_id = %(user)s and p.part = 'context' and p.value is not null
 group by a.id
 order by a.id

-- name: by_record
-- The same of the images of one record's rows, in any schema or in one.
select a.id, count(*), min(a.schema_name)
  from {schema}.audit_logs as a
  join {schema}.personal_values as p on p.id = a.id
 where a.table_name = %(table)s and a.record_id = %(record)s
   and (%(schema_name)s::text is null or a.schema_name = %(schema_name)s)
   and p.part in ('new_data', 'old_data') and p.value is not null
 group by a.id
 order by a.id

-- name: by_ids
-- The same of rows that are known already.
select p.id, count(*), min(named.schema_name)
  from rows from (pg_catalog.unnest(%(ids)s::bigint[]), pg_catalog.unnest(%(schemas)s::text[])) as named (id, schema_name)
  join {schema}.personal_values as p on p.id = named.id
 where p.part = any (%(parts)s) and p.value is not null
 group by p.id
 order by p.id

-- name: values_left
select count(*)
  from pg_catalog.jsonb_array_elements(%s::jsonb) as one
  join {schema}.personal_values as p on p.id between (one ->> 0)::bigint and (one ->> 1)::bigint
 where p.value is not null

-- name: prefer_indexes
-- As in the log: of a Bloom index the planner expects little.
select pg_catalog.set_config('enable_seqscan', 'off', true)

-- name: who
select session_user::text
