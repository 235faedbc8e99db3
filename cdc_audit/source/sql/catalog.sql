-- What a decoder must know of types and tables; filled into model.catalog.

-- name: types
-- The types asked for and all that they are made of: a domain's base, an array's elements, a composite's fields.
-- An array is what PostgreSQL's IsTrueArrayType says, which to_jsonb goes by; point, box and name are none.
with recursive wanted (oid) as (
    select unnest(%(oids)s::oid[])
    union
    select part.oid
    from wanted
    join pg_type t on t.oid = wanted.oid
    cross join lateral (
        select t.typbasetype where t.typtype = 'd'
        union all
        select t.typelem where t.typelem <> 0 and t.typsubscript = 'array_subscript_handler'::regproc
        union all
        select a.atttypid from pg_attribute a
        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    ) as part (oid)
)
select
    t.oid::bigint as oid,
    case when t.typtype = 'd' then t.typbasetype::bigint end as domain_of,
    case when t.typsubscript = 'array_subscript_handler'::regproc then t.typelem::bigint else 0 end as element,
    -- int2vector and oidvector are arrays whose text has no braces: blanks stand between the elements
    case when t.oid in ('int2vector'::regtype, 'oidvector'::regtype) then ' ' else coalesce(e.typdelim, ',')::text end as delimiter,
    t.typtype = 'c' as is_composite,
    coalesce(f.names, '{}') as field_names,
    coalesce(f.types, '{}') as field_types
from wanted
join pg_type t on t.oid = wanted.oid
left join pg_type e on e.oid = t.typelem
left join lateral (
    select array_agg(a.attname::text order by a.attnum) as names, array_agg(a.atttypid::bigint order by a.attnum) as types
    from pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
) as f on true;

-- name: tables
-- From 18 on attnotnull is also true for a constraint that was never checked (not valid). A primary key is one that wal2json
-- shows as such: valid and not deferrable.
select
    n.nspname::text as schema,
    c.relname::text as "table",
    rn.nspname::text as root_schema,
    root.relname::text as root_table,
    c.relkind::text as kind,
    coalesce(a.names, '{}') as column_names,
    coalesce(a.types, '{}') as column_types,
    coalesce(a.not_nulls, '{}') as column_not_nulls,
    coalesce(key.columns, '{}') as primary_key
from unnest(%(schemas)s::text[], %(tables)s::text[]) as wanted (schema, "table")
join pg_namespace n on n.nspname = wanted.schema
join pg_class c on c.relnamespace = n.oid and c.relname = wanted."table"
join pg_class root on root.oid = coalesce(pg_partition_root(c.oid), c.oid)
join pg_namespace rn on rn.oid = root.relnamespace
left join lateral (
    select
        array_agg(a.attname::text order by a.attnum) as names,
        array_agg(a.atttypid::bigint order by a.attnum) as types,
        array_agg(
            a.attnotnull and not exists (
                select from pg_constraint k
                where k.conrelid = a.attrelid and k.contype = 'n' and not k.convalidated and k.conkey = array[a.attnum]
            )
            order by a.attnum
        ) as not_nulls
    from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
) as a on true
left join lateral (
    select array_agg(a.attname::text order by a.attnum) as columns
    from pg_index i
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey[: i.indnkeyatts - 1])
    where i.indrelid = c.oid and i.indisprimary and i.indisvalid and i.indimmediate
) as key on true;
