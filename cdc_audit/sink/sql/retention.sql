-- name: who
select session_user::text

-- name: holds
-- All that was ever said of holds, in order.
select block, kind, written_at, detail from {schema}.ledger where kind in ('hold', 'release') order by block

-- name: try_archive_lock
select pg_catalog.pg_try_advisory_lock(pg_catalog.hashtextextended('cdc-audit archive ' || %s, 0))

-- name: settings
-- A busy trail is not waited for: whoever waits for its lock stops all who come after.
select pg_catalog.set_config('lock_timeout', '3s', true), pg_catalog.set_config('statement_timeout', '0', true),
       pg_catalog.set_config('synchronous_commit', 'on', true)

-- name: close_month
-- Nothing takes rows away, and from here to the end of the transaction nothing adds one: the lock is that of this statement, which
-- the owner may run and which changes nothing. Whoever reads, or writes to other months, goes on.
alter table {leaf} enable always trigger refuse_truncate

-- name: last_block
select max(block) from {schema}.ledger

-- name: counted
-- Rows of a partition, and how many of them lie in inclusive ranges of ids.
select count(*), count(*) filter (where l.id <@ r.ids)
  from {leaf} as l
 cross join (select coalesce(pg_catalog.range_agg(pg_catalog.int8range((one ->> 0)::bigint, (one ->> 1)::bigint, '[]')),
                             '{{}}'::int8multirange) as ids
               from pg_catalog.jsonb_array_elements(%s::jsonb) as one) as r

-- name: covered
-- Whether any row is under a hold: all that is said of it must be so.
select exists (select from {leaf}
                where (%(schema_name)s::text is null or schema_name = %(schema_name)s)
                  and (%(table_name)s::text is null or table_name = %(table_name)s)
                  and (%(record_id)s::text is null or record_id = %(record_id)s)
                  and (%(user)s::text is null or user_id = %(user)s or user_email = %(user)s)
                  and (%(since)s::timestamptz is null or created_at >= %(since)s)
                  and (%(until)s::timestamptz is null or created_at < %(until)s))

-- name: count
select count(*) from {leaf}

-- name: ranges
-- The ids of a partition as inclusive ranges.
select min(id), max(id)
  from (select id, id - pg_catalog.row_number() over (order by id) as island from {leaf}) as numbered
 group by island
 order by 1

-- name: drop_month
drop table {leaf}
