-- name: scope
-- Of the blocks that overlap the time: first, last, how many; the rows' ids; what they are of.
select min(block), max(block), count(*), min(slot), min(system_identifier), min(start_lsn)::text, max(end_lsn)::text
  from {schema}.ledger
 where (last_commit_at >= {since} or written_at >= {since}) and start_lsn < coalesce(
           (select max(end_lsn) from {schema}.ledger where written_at < {until} or last_commit_at < {until}), 'FFFFFFFF/FFFFFFFF')

-- name: actions
select action, context_trust, capture, count(*)
  from {schema}.audit_logs
 where created_at >= {since} and created_at < {until}
 group by 1, 2, 3
 order by 1, 2, 3

-- name: actors
select coalesce(user_id, user_email), db_user, count(*), count(*) filter (where action in ('DELETE', 'TRUNCATE')),
       pg_catalog.to_char(min(created_at) at time zone 'UTC', {iso}), pg_catalog.to_char(max(created_at) at time zone 'UTC', {iso})
  from {schema}.audit_logs
 where created_at >= {since} and created_at < {until}
 group by 1, 2
 order by 3 desc, 1, 2

-- name: deletions
select schema_name, table_name, action, coalesce(user_id, user_email), count(*),
       pg_catalog.to_char(min(created_at) at time zone 'UTC', {iso}), pg_catalog.to_char(max(created_at) at time zone 'UTC', {iso})
  from {schema}.audit_logs
 where created_at >= {since} and created_at < {until} and action in ('DELETE', 'TRUNCATE')
 group by 1, 2, 3, 4
 order by 5 desc, 1, 2, 3, 4

-- name: unattributed
-- Without a context, or with one that can't be believed.
select schema_name, table_name, context_trust, count(*), min(id), max(id)
  from {schema}.audit_logs
 where created_at >= {since} and created_at < {until} and context_trust in ('none', 'forged', 'invalid')
 group by 1, 2, 3
 order by 4 desc, 1, 2, 3

-- name: suppressed
-- Changes whose rows the source did not tell, or not whole.
select schema_name, table_name, action, capture, count(*), min(id), max(id)
  from {schema}.audit_logs
 where created_at >= {since} and created_at < {until} and capture not in ('full', 'snapshot')
 group by 1, 2, 3, 4
 order by 5 desc, 1, 2, 3, 4

-- name: gaps
-- All of them, not only this time's: what is missing is missing from every answer.
select block, kind, start_lsn::text, end_lsn::text, pg_catalog.to_char(written_at at time zone 'UTC', {iso}), detail::text
  from {schema}.ledger
 where kind in ('gap', 'divergence', 'poison')
 order by block

-- name: iso
'YYYY-MM-DD"T"HH24:MI:SS"Z"'
