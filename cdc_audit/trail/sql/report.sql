-- name: scope
-- Of the blocks that overlap the time: first, last, how many; the rows' ids; what they are of.
select min(block), max(block), count(*), min(slot), min(system_identifier), min(start_lsn)::text, max(end_lsn)::text
  from {schema}.ledger
 where (last_commit_at >= {since} or written_at >= {since}) and start_lsn < coalesce(
           (select max(end_lsn) from {schema}.ledger where written_at < {until} or last_commit_at < {until}), 'FFFFFFFF/FFFFFFFF')

-- name: actions
select action, context_trust, capture, sum(times)::bigint
  from {rows}
 group by 1, 2, 3
 order by 1, 2, 3

-- name: actors
select who, db_user, sum(times)::bigint, coalesce(sum(times) filter (where action in ('DELETE', 'TRUNCATE')), 0)::bigint,
       pg_catalog.to_char(min(first_at) at time zone 'UTC', {iso}), pg_catalog.to_char(max(last_at) at time zone 'UTC', {iso})
  from {rows}
 group by 1, 2
 order by 3 desc, 1, 2

-- name: deletions
select schema_name, table_name, action, who, sum(times)::bigint,
       pg_catalog.to_char(min(first_at) at time zone 'UTC', {iso}), pg_catalog.to_char(max(last_at) at time zone 'UTC', {iso})
  from {rows}
 where action in ('DELETE', 'TRUNCATE')
 group by 1, 2, 3, 4
 order by 5 desc, 1, 2, 3, 4

-- name: unattributed
-- Without a context, or with one that can't be believed.
select schema_name, table_name, context_trust, sum(times)::bigint, min(first_id), max(last_id)
  from {rows}
 where context_trust in ('none', 'forged', 'invalid')
 group by 1, 2, 3
 order by 4 desc, 1, 2, 3

-- name: suppressed
-- Changes whose rows the source did not tell, or not whole.
select schema_name, table_name, action, capture, sum(times)::bigint, min(first_id), max(last_id)
  from {rows}
 where capture not in ('full', 'snapshot')
 group by 1, 2, 3, 4
 order by 5 desc, 1, 2, 3, 4

-- name: gaps
-- All of them, not only this time's: what is missing is missing from every answer.
select block, kind, start_lsn::text, end_lsn::text, pg_catalog.to_char(written_at at time zone 'UTC', {iso}), detail::text
  from {schema}.ledger
 where kind in ('gap', 'divergence', 'poison')
 order by block

-- name: rows
-- What is counted: each row of the audit database, and of archives what was counted there, an array for each column.
(select action, context_trust, capture, coalesce(user_id, user_email) as who, db_user, schema_name, table_name, 1::bigint as times,
        created_at as first_at, created_at as last_at, id as first_id, id as last_id
   from {schema}.audit_logs
  where created_at >= {since} and created_at < {until}
  union all
 select *
   from rows from (
            pg_catalog.unnest(%(action)s::text[]), pg_catalog.unnest(%(context_trust)s::text[]),
            pg_catalog.unnest(%(capture)s::text[]), pg_catalog.unnest(%(who)s::text[]), pg_catalog.unnest(%(db_user)s::text[]),
            pg_catalog.unnest(%(schema_name)s::text[]), pg_catalog.unnest(%(table_name)s::text[]),
            pg_catalog.unnest(%(times)s::bigint[]), pg_catalog.unnest(%(first_at)s::timestamptz[]),
            pg_catalog.unnest(%(last_at)s::timestamptz[]), pg_catalog.unnest(%(first_id)s::bigint[]),
            pg_catalog.unnest(%(last_id)s::bigint[])
        ) as away) as counted

-- name: iso
'YYYY-MM-DD"T"HH24:MI:SS"Z"'
