-- The oracle: ordinary triggers that note every row change in a table of their own, in the changing transaction.
-- Nothing here is used by the product, and the product doesn't capture this schema.

create schema oracle;

-- One sequence numbers changes, claims and events, so that their order within a transaction is known.
create sequence oracle.n;

create table oracle.shadow (
    n bigint primary key default nextval('oracle.n'),
    xid bigint not null default pg_current_xact_id()::text::bigint,
    op text not null,
    relation oid not null,
    old jsonb,
    new jsonb
);

-- What the application says about itself, noted beside each context that it gives.
create table oracle.claim (
    n bigint primary key default nextval('oracle.n'),
    xid bigint not null default pg_current_xact_id()::text::bigint,
    claimed_user text not null,
    trust text not null
);

-- Application events (cdc_audit.log_event).
create table oracle.event (
    n bigint primary key default nextval('oracle.n'),
    xid bigint not null default pg_current_xact_id()::text::bigint,
    action text not null,
    record_id text not null
);

create table oracle.mark (xid bigint not null default pg_current_xact_id()::text::bigint);

-- Settings are those that the trail promises, whatever the changing session has set.
create function oracle.note() returns trigger language plpgsql security definer
set search_path = pg_catalog set timezone = 'UTC' set datestyle = 'ISO' set intervalstyle = 'postgres'
set bytea_output = 'hex' set extra_float_digits = 3
as $$
begin
    insert into oracle.shadow (op, relation, old, new) values (
        tg_op, tg_relid,
        case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end,
        case when tg_op in ('INSERT', 'UPDATE') then to_jsonb(new) end);
    return null;
end
$$;

-- Row triggers on roots (partitions inherit them), TRUNCATE triggers on every table. Their name sorts before those of
-- foreign keys, so that a row is noted before what its change cascades to.
create procedure oracle.watch(schemas text[]) language plpgsql as $$
declare
    tab record;
begin
    for tab in
        select c.oid::regclass as name, c.relispartition from pg_class c join pg_namespace s on s.oid = c.relnamespace
        where s.nspname = any (schemas) and c.relkind in ('r', 'p')
    loop
        execute format('create trigger "A_oracle_truncate" after truncate on %s execute function oracle.note()', tab.name);
        if not tab.relispartition then
            execute format('create trigger "A_oracle_row" after insert or update or delete on %s '
                           'for each row execute function oracle.note()', tab.name);
        end if;
    end loop;
end
$$;

-- What is known of a table: its names, its identity (full, key, none), its columns and its key in column order.
create view oracle.relation as
select c.oid as relation, s.nspname as schema_name, r.relname as table_name,
    case when c.oid <> r.oid then c.relname end as partition_name,
    case when c.relreplident = 'f' then 'full' when c.relreplident = 'd' and k.key is not null then 'key' else 'none' end
        as identity,
    (select array_agg(a.attname::text order by a.attnum) from pg_attribute a
     where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped) as columns,
    coalesce(k.key, '{}') as key
from pg_class c
join pg_class r on r.oid = coalesce(pg_partition_root(c.oid), c.oid)
join pg_namespace s on s.oid = r.relnamespace
left join lateral (
    select array_agg(a.attname::text order by a.attnum) as key from pg_index i
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any (i.indkey)
    where i.indrelid = c.oid and i.indisprimary having count(*) > 0
) k on true
where c.relkind in ('r', 'p');
