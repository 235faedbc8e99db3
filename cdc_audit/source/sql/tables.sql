-- The tables whose changes could be audited, and what the WAL tells about their rows.

-- name: tables
-- has_identity follows PostgreSQL's RelationGetReplicaIndex: of the indexes only valid, unique, immediate ones without a predicate.
select
    n.nspname::text as schema,
    c.relname::text as "table",
    case c.relkind when 'p' then 'partitioned' else 'table' end as kind,
    case c.relpersistence when 'p' then 'permanent' else 'unlogged' end as persistence,
    case when root.oid <> c.oid then array[rn.nspname::text, root.relname::text] end as root,
    coalesce(key.columns, '{}') as primary_key,
    case c.relreplident when 'd' then 'default' when 'f' then 'full' when 'i' then 'index' else 'nothing' end as replica_identity,
    case c.relreplident
        when 'f' then true
        when 'd' then coalesce(key.is_usable, false)
        when 'i' then exists (
            select from pg_index i
            where i.indrelid = c.oid and i.indisreplident
                and i.indisvalid and i.indisunique and i.indimmediate and i.indpred is null
        )
        else false
    end as has_identity
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_class root on root.oid = coalesce(pg_partition_root(c.oid), c.oid)
join pg_namespace rn on rn.oid = root.relnamespace
left join lateral (
    select
        (select array_agg(a.attname::text order by a.attnum) from pg_attribute a
         where a.attrelid = c.oid and a.attnum = any (i.indkey)) as columns,
        i.indisvalid and i.indimmediate as is_usable
    from pg_index i
    where i.indrelid = c.oid and i.indisprimary
) as key on true
where c.relkind in ('r', 'p')
    and c.relpersistence <> 't'
    and n.nspname !~ '^pg_'
    and n.nspname not in ('information_schema', 'cdc_audit')
order by 1, 2;

-- name: lock_timeout
select set_config('lock_timeout', '5s', true);

-- name: set_full
-- template: table
alter table {table} replica identity full;
