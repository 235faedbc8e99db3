-- name: may_read
-- Not before version 6 of the schema.
select coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass(pg_catalog.format('%%I.digests', %(schema)s::text)), 'select'), false)

-- name: ranges
-- Ids that may hold what is asked for, in their order; the last without end: what is not digested yet.
select first_id, end_id from {schema}.digests where partition = %(partition)s and {holds}
union all
select coalesce(max(end_id), 0), null from {schema}.digests where partition = %(partition)s
 order by 1, 2 nulls last

-- name: holds
pg_catalog.hashtext({term}::text) = any (terms)
