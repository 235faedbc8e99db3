-- name: begun
select written_at from {schema}.ledger order by block limit 1

-- name: holes
select block, kind, written_at at time zone 'UTC'
  from {schema}.ledger
 where kind in ('gap', 'divergence')
 order by block
