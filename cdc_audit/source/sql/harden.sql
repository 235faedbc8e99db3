-- What `cdc-audit source install --harden` adds: event triggers that say, signed, what DDL has done. Tag and identity of the
-- object, never the query's text, which may hold values.

-- name: state
-- What of a table decides whether its changes are seen, as its last DDL left it: so that a message can say what it was before.
-- That it exists says that the source was hardened.
create table if not exists cdc_audit.table_state (relid oid primary key, facts jsonb not null);
comment on table cdc_audit.table_state is 'what each table was like after its last DDL; kept by event triggers';
do $$
declare
    given record;
begin
    for given in
        select acl.grantee from pg_class c, aclexplode(c.relacl) as acl
        where c.oid = 'cdc_audit.table_state'::regclass and acl.grantee <> c.relowner
    loop
        execute format('revoke all on cdc_audit.table_state from %s',
                       case given.grantee when 0 then 'public' else given.grantee::regrole::text end);
    end loop;
end
$$;

-- name: functions
-- The facts of a table or partitioned table that isn't temporary, else null. has_identity as in tables.sql; context_trigger
-- and session_trigger are true where `source install --guc` and --sessions have put theirs, null where they are not there or disabled. A repeatable read
-- transaction that alters what others have altered since its snapshot may see a table twice, or as it was before both.
create or replace function cdc_audit.table_facts(relid oid) returns jsonb
language sql stable as $$
    select jsonb_build_object(
        'schema', n.nspname,
        'table', c.relname,
        'persistence', case c.relpersistence when 'p' then 'permanent' else 'unlogged' end,
        'replica_identity',
        case c.relreplident when 'd' then 'default' when 'f' then 'full' when 'i' then 'index' else 'nothing' end,
        'has_identity',
        case c.relreplident
            when 'f' then true
            when 'n' then false
            else exists (
                select from pg_index i
                where i.indrelid = c.oid and i.indisvalid and i.indimmediate and i.indpred is null
                    and case c.relreplident when 'd' then i.indisprimary else i.indisreplident end
            )
        end,
        'root', case when root.oid <> c.oid then jsonb_build_array(rn.nspname, root.relname) end,
        'context_trigger',
        case when exists (
            select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'cdc_audit_context' and t.tgenabled <> 'D'
        ) then true end,
        'session_trigger',
        case when exists (
            select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'cdc_audit_session' and t.tgenabled <> 'D'
        ) then true end
    )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_class root on root.oid = coalesce(pg_partition_root(c.oid), c.oid)
    join pg_namespace rn on rn.oid = root.relnamespace
    where c.oid = $1 and c.relkind in ('r', 'p') and c.relpersistence <> 't'
    order by age(c.xmin)
    limit 1
$$;

-- Remembers a table as it is now; the facts as they are, and under "was" those that were different (all, of a dropped one).
-- A transaction whose snapshot is too old to remember them still tells them.
create or replace function cdc_audit.noted(relid oid) returns jsonb
language plpgsql as $$
#variable_conflict use_column
declare
    present jsonb := cdc_audit.table_facts($1);
    past jsonb := (select facts from cdc_audit.table_state where relid = $1);
begin
    if present is distinct from past then
        begin
            if present is null then
                delete from cdc_audit.table_state where relid = $1;
            else
                insert into cdc_audit.table_state values ($1, present)
                on conflict (relid) do update set facts = excluded.facts;
            end if;
        exception when serialization_failure then
            null;
        end;
    end if;
    return coalesce(present, '{}') || coalesce(
        (select jsonb_build_object('was', jsonb_object_agg(key, value)) from jsonb_each(past)
         where value is distinct from present -> key having count(*) > 0), '{}');
end
$$;

-- A command's objects, and tables that it changed without naming them: those of a schema that has another name, partitions that
-- were attached or detached. Of an extension's script only its tables. table_id is the table that an object belongs to.
create or replace function cdc_audit.ddl_commands() returns setof jsonb
language sql volatile as $$
    with command as materialized (
        select d.classid, d.command_tag, d.object_type, d.schema_name, d.object_identity, case d.classid
            when 'pg_class'::regclass
            then coalesce((select i.indrelid from pg_index i where i.indexrelid = d.objid), d.objid)
            when 'pg_trigger'::regclass then (select t.tgrelid from pg_trigger t where t.oid = d.objid)
            when 'pg_constraint'::regclass then (select c.conrelid from pg_constraint c where c.oid = d.objid)
            when 'pg_policy'::regclass then (select p.polrelid from pg_policy p where p.oid = d.objid)
            when 'pg_rewrite'::regclass then (select r.ev_class from pg_rewrite r where r.oid = d.objid)
        end as relid
        from pg_event_trigger_ddl_commands() d
        where d.schema_name is distinct from 'pg_temp' and (not d.in_extension or d.object_type = 'table')
    )
    select jsonb_build_object(
        'tag', c.command_tag, 'object_type', c.object_type, 'identity', left(c.object_identity, 1000),
        'schema', coalesce(n.nspname, c.schema_name), 'table', r.relname, 'table_id', c.relid
    )
    from command c
    left join lateral (select * from pg_class where oid = c.relid order by age(xmin) limit 1) as r on true
    left join pg_namespace n on n.oid = r.relnamespace
    where r.relpersistence is distinct from 't'
    union all
    select distinct jsonb_build_object(
        'tag', wide.command_tag, 'object_type', 'table', 'identity', touched.relid::regclass::text, 'table_id', touched.relid
    )
    from (
        select c.command_tag, c.classid, c.relid, coalesce(
            nullif(cdc_audit.table_facts(c.relid) -> 'root', 'null'),
            jsonb_build_array((select nspname from pg_namespace where oid = r.relnamespace), r.relname)
        ) as root
        from command c
        left join pg_class r on r.oid = c.relid
        where c.classid = 'pg_namespace'::regclass or (r.relkind = 'p' and c.object_type = 'table')
        offset 0  -- so that tables are looked through for these only
    ) as wide
    cross join lateral (
        select s.relid from cdc_audit.table_state s
        where (
                wide.classid = 'pg_namespace'::regclass
                or s.facts -> 'root' = wide.root
                or s.relid in (select tree.relid from pg_partition_tree(wide.relid) as tree)
            )
            and cdc_audit.table_facts(s.relid) <> s.facts
        offset 0
    ) as touched
    where touched.relid not in (select k.relid from command k where k.relid is not null)
$$;

-- What was dropped: what was named, and every table that went with it; and tables whose identity was a dropped index.
create or replace function cdc_audit.ddl_drops(tag text) returns setof jsonb
language sql volatile as $$
    with dropped as materialized (
        select * from pg_event_trigger_dropped_objects() d
        where (d.original or d.object_type = 'table')
            and not d.is_temporary and coalesce(d.address_names[1], '') !~ '^pg_temp'
    )
    select jsonb_build_object(
        'tag', $1, 'object_type', d.object_type, 'identity', left(d.object_identity, 1000),
        'schema', coalesce(d.schema_name, case when found.of_table then d.address_names[1] end),
        'table', case when d.object_type = 'table' then d.object_name when found.of_table then d.address_names[2] end,
        'table_id', case when d.object_type = 'table' then d.objid end
    )
    from dropped d
    cross join lateral (
        select d.object_type in ('table column', 'table constraint', 'trigger', 'policy', 'rule', 'default value') as of_table
    ) as found
    union all
    select jsonb_build_object('tag', $1, 'object_type', 'table', 'identity', s.relid::regclass::text, 'table_id', s.relid)
    from cdc_audit.table_state s
    where s.facts ->> 'replica_identity' = 'index' and exists (select from dropped d where d.object_type = 'index')
        and cdc_audit.table_facts(s.relid) <> s.facts
$$;

-- A table whose rows are about to be written anew, which no stream of changes shows. Setting the key's own table unlogged and
-- logged again is how a key is made.
create or replace function cdc_audit.ddl_rewrite(tag text) returns setof jsonb
language sql volatile as $$
    select jsonb_build_object(
        'tag', $1, 'object_type', 'table', 'identity', rewritten.relid::regclass::text, 'reason',
        to_jsonb(array_remove(array[
            case when reason & 1 <> 0 then 'persistence' end, case when reason & 2 <> 0 then 'default' end,
            case when reason & 4 <> 0 then 'column type' end, case when reason & 8 <> 0 then 'access method' end
        ], null))
    ) || facts
    from (select pg_event_trigger_table_rewrite_oid() as relid, pg_event_trigger_table_rewrite_reason() as reason) as rewritten
    cross join lateral cdc_audit.table_facts(relid) as facts
    where facts is not null and relid <> 'cdc_audit.context_key'::regclass
$$;

-- The application's DDL never fails for this: of what could not be told, it tells that; the last resort is a warning.
-- A refreshed materialized view is no change of the schema.
create or replace function cdc_audit.on_ddl() returns event_trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    told jsonb;
    number integer := 0;
    problem text;
begin
    if tg_tag = 'REFRESH MATERIALIZED VIEW' then
        return;
    end if;
    begin
        for told in
            select d.told from cdc_audit.ddl_commands() as d (told) where tg_event = 'ddl_command_end'
            union all
            select d.told from cdc_audit.ddl_drops(tg_tag) as d (told) where tg_event = 'sql_drop'
            union all
            select d.told from cdc_audit.ddl_rewrite(tg_tag) as d (told) where tg_event = 'table_rewrite'
        loop
            number := number + 1;
            if told -> 'table_id' <> 'null' then
                told := told || cdc_audit.noted((told ->> 'table_id')::oid);
            end if;
            if tg_event = 'sql_drop' and told ->> 'object_type' = 'trigger' then
                perform cdc_audit.noted(to_regclass(format('%I.%I', told ->> 'schema', told ->> 'table')));
            end if;
            if number <= 1000 then
                perform cdc_audit.emit('ddl', true, jsonb_build_object('event', tg_event) || told - 'table_id');
            end if;
        end loop;
        if number > 1000 then
            perform cdc_audit.emit('ddl', true,
                jsonb_build_object('event', tg_event, 'tag', tg_tag, 'omitted', number - 1000));
        end if;
    exception when others then
        problem := sqlstate;
    end;
    if problem is not null then
        perform cdc_audit.emit('ddl', true, jsonb_build_object('event', tg_event, 'tag', tg_tag, 'untold', problem));
    end if;
exception when others then
    raise warning 'cdc_audit: % is not in the audit trail (%)', tg_tag, sqlstate;
end
$$;
comment on function cdc_audit.on_ddl() is 'tells what DDL has done; never fails';

revoke all on function
    cdc_audit.table_facts(oid), cdc_audit.noted(oid), cdc_audit.ddl_commands(), cdc_audit.ddl_drops(text),
    cdc_audit.ddl_rewrite(text), cdc_audit.on_ddl()
from public;

-- name: note_tables
-- What is known from before is of no use where DDL was not watched.
delete from cdc_audit.table_state;
insert into cdc_audit.table_state
select c.oid, cdc_audit.table_facts(c.oid) from pg_class c
where c.relkind in ('r', 'p') and c.relpersistence <> 't'
    and c.relnamespace not in (select oid from pg_namespace where nspname ~ '^pg_' or nspname = 'information_schema')
on conflict (relid) do update set facts = excluded.facts;

-- name: event_triggers
do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values
            ('cdc_audit_ddl', 'ddl_command_end'), ('cdc_audit_drop', 'sql_drop'), ('cdc_audit_rewrite', 'table_rewrite')
        ) as names (name, event)
    loop
        if not exists (
            select from pg_event_trigger
            where evtname = wanted.name and evtevent = wanted.event and evtfoid = 'cdc_audit.on_ddl()'::regprocedure
        ) then
            execute format('drop event trigger if exists %I', wanted.name);
            execute format('create event trigger %I on %s execute function cdc_audit.on_ddl()', wanted.name, wanted.event);
        end if;
        if exists (select from pg_event_trigger where evtname = wanted.name and evtenabled <> 'A') then
            execute format('alter event trigger %I enable always', wanted.name);
        end if;
    end loop;
end
$$;

-- name: found
-- Whether the source was hardened, and the event triggers that work; mark changes whenever one of them is altered.
select
    exists (
        select from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname = 'cdc_audit' and c.relname = 'table_state'
    ) as was_hardened,
    coalesce(array_agg(t.evtname::text order by t.evtname) filter (where t.evtenabled = 'A'), '{}') as working,
    coalesce(string_agg(t.oid::text || ':' || t.xmin::text, ' ' order by t.oid), '') as mark
from pg_event_trigger t
join pg_proc p on p.oid = t.evtfoid and p.proname = 'on_ddl'
join pg_namespace pn on pn.oid = p.pronamespace and pn.nspname = 'cdc_audit';

-- name: drop_event_triggers
drop event trigger if exists cdc_audit_ddl;
drop event trigger if exists cdc_audit_drop;
drop event trigger if exists cdc_audit_rewrite;

-- name: drop
drop function if exists
    cdc_audit.on_ddl(), cdc_audit.ddl_rewrite(text), cdc_audit.ddl_drops(text), cdc_audit.ddl_commands(),
    cdc_audit.noted(oid), cdc_audit.table_facts(oid);
drop table if exists cdc_audit.table_state;
