-- The two publications that pgoutput reads: of all changes, and of inserts and truncates only. %(names)s are both.
-- Blocks with words in braces go through psycopg.sql.

-- name: publications
select
    p.pubname::text as name,
    p.puballtables as is_for_all,
    pg_has_role(p.pubowner, 'usage') as is_own,
    array_remove(array[
        case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end,
        case when p.pubdelete then 'delete' end, case when p.pubtruncate then 'truncate' end
    ], null) as operations,
    p.pubviaroot as is_via_root,
    -- PostgreSQL 18 and newer; an older one never sends generated columns
    coalesce(to_jsonb(p) ->> 'pubgencols', 's') = 's' as has_generated
from pg_publication p
where p.pubname = any (%(names)s);

-- name: facts
-- published_by: by whatever way, as a partition or by its schema, too. direct: in its own name, all columns and rows.
-- is_refused: from 18 on the server refuses to update a published table with REPLICA IDENTITY FULL and virtual columns.
select
    n.nspname::text as schema,
    c.relname::text as "table",
    pg_has_role(c.relowner, 'usage') as is_own,
    exists (
        select from pg_index i
        where i.indrelid = c.oid and i.indisprimary and i.indisvalid and i.indimmediate
    ) as has_key,
    c.relreplident = 'f' and exists (
        select from pg_attribute a where a.attrelid = c.oid and a.attgenerated = 'v' and not a.attisdropped
    ) as is_refused,
    coalesce(member.direct, '{}') as direct,
    coalesce(member.partial, '{}') as partial,
    coalesce(published.by, '{}') as published_by
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
left join lateral (
    select
        array_agg(p.pubname::text) filter (where whole.is_it) as direct,
        array_agg(p.pubname::text) filter (where not whole.is_it) as partial
    from pg_publication_rel r
    join pg_publication p on p.oid = r.prpubid
    -- row filters and column lists, from 15 on
    cross join lateral (
        select (to_jsonb(r) ->> 'prqual') is null and (to_jsonb(r) ->> 'prattrs') is null as is_it
    ) as whole
    where r.prrelid = c.oid and p.pubname = any (%(names)s)
) as member on true
left join (
    select schemaname, tablename, array_agg(pubname::text) as by
    from pg_publication_tables
    where pubname = any (%(names)s)
    group by 1, 2
) as published on published.schemaname = n.nspname and published.tablename = c.relname
where c.relkind in ('r', 'p') and c.relpersistence <> 't';

-- name: is_read
-- Whether a slot may be in the middle of transactions that change the tables.
select exists (select from pg_replication_slots where plugin = 'pgoutput' and database = current_database());

-- name: options
publish = {operations}, publish_via_partition_root = false

-- name: options_since_18
publish = {operations}, publish_via_partition_root = false, publish_generated_columns = stored

-- name: grant
grant create on database {database} to {role};

-- name: create
create publication {name} with ({options});

-- name: set
alter publication {name} set ({options});

-- name: lock
-- Before the minors of May 2025 a walsender that decodes a transaction which had changed the table before it was published,
-- and was still open, goes on leaving the table out.
lock table {table} in share row exclusive mode;

-- name: add
alter publication {name} add table only {table};

-- name: remove
alter publication {name} drop table only {table};

-- name: drop
drop publication {name};
