-- Personal values: what opens the commitments in rows, until it is erased. Run as audit_owner.

-- Collated by bytes, so that the primary key's order is the order in which a block's openings are hashed.
create table {schema}.personal_values (
    id         bigint           not null,
    part       text collate "C" not null check (part in ('context', 'new_data', 'old_data')),
    field      text collate "C" not null,
    commitment bytea            not null,
    salt       bytea,
    value      text,
    primary key (id, part, field)
) with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

-- ANALYZE would keep examples of what is to be erased.
alter table {schema}.personal_values alter column value set statistics 0, alter column salt set statistics 0,
                                     alter column commitment set statistics 0;

comment on table {schema}.personal_values is
    'The values behind the commitments in audit_logs. Can be added to, and erased by an erasure block of the ledger.';

-- An UPDATE of personal_values may do one thing: erase exactly what the ledger's newest block, an erasure, names. So what was erased
-- and what the ledger says was erased can't differ, whoever runs it.
create function {schema}.only_erase() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    newest  text;
    said    jsonb;
    erased  int8multirange;
    refused boolean;
begin
    execute format('select kind, detail from %I.ledger order by block desc limit 1', tg_table_schema) into newest, said;
    if newest = 'erasure' then
        select range_agg(int8range((one ->> 0)::bigint, (one ->> 1)::bigint, '[]')) into erased
          from jsonb_array_elements(said -> 'ids') as one;
    end if;
    select count(*) <> count(*) filter (where n.id is not null and n.commitment = o.commitment and n.salt is null
                                          and n.value is null and o.id <@ erased and said -> 'parts' ? o.part)
      into refused
      from old_rows as o
      left join new_rows as n on n.id = o.id and n.part = o.part and n.field = o.field;
    if refused then
        raise exception 'the audit trail can only be added to: % of %.% is refused', tg_op, tg_table_schema, tg_table_name
            using errcode = 'insufficient_privilege';
    end if;
    return null;
end
$$;

-- As in 0001; personal_values has another trigger for UPDATE, and its owner the right to it.
create or replace function {schema}.protect(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    target     constant regclass := format('%I.%I', {schema_name}, relation)::regclass;
    can_erase  constant boolean := relation = 'personal_values';
    trigger    name;
begin
    if not exists (select from pg_trigger where tgrelid = target and tgname = 'refuse_change') then
        execute format('create trigger refuse_change before %s on %s for each row execute function %I.refuse_change()',
                       case when can_erase then 'delete' else 'update or delete' end, target, {schema_name});
    end if;
    if can_erase and not exists (select from pg_trigger where tgrelid = target and tgname = 'only_erase') then
        execute format('create trigger only_erase after update on %s referencing old table as old_rows new table as new_rows
                        for each statement execute function %I.only_erase()', target, {schema_name});
    end if;
    if not exists (select from pg_trigger where tgrelid = target and tgname = 'refuse_truncate') then
        execute format('create trigger refuse_truncate before truncate on %s
                        for each statement execute function %I.refuse_change()', target, {schema_name});
    end if;
    for trigger in
        select tgname from pg_trigger
         where tgrelid = target and tgname in ('refuse_change', 'refuse_truncate', 'only_erase') and tgenabled <> 'A'
    loop
        execute format('alter table %s enable always trigger %I', target, trigger);
    end loop;
    execute format('revoke all on %s from public', target);
    execute format('revoke update, delete, truncate on %s from audit_owner', target);
    if can_erase then
        execute format('grant update (salt, value) on %s to audit_owner', target);
    end if;
    execute format('grant select on %s to audit_admin', target);
end
$$;

-- Append an erasure block and erase what its detail names: all values of ``parts`` in the rows ``ids``, inclusive ranges.
-- ``values`` says how many there are; if it is another number, nothing happens.
create function {schema}.erase(entry {schema}.ledger) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    erased bigint;
begin
    if entry.kind is distinct from 'erasure' or entry.row_count <> 0 then
        raise exception 'erase takes an erasure block without rows' using errcode = 'invalid_parameter_value';
    end if;
    insert into {schema}.ledger select (entry).*;
    with named as materialized (
        select (one ->> 0)::bigint as first, (one ->> 1)::bigint as last from jsonb_array_elements(entry.detail -> 'ids') as one
    )
    update {schema}.personal_values as p
       set salt = null, value = null
      from named
     where p.id between named.first and named.last and entry.detail -> 'parts' ? p.part and p.value is not null;
    get diagnostics erased = row_count;
    if erased is distinct from (entry.detail ->> 'values')::bigint then
        raise exception 'the block names % values, but % are there', entry.detail ->> 'values', erased
            using errcode = 'serialization_failure';
    end if;
end
$$;

select {schema}.protect('personal_values');

revoke all on function {schema}.only_erase(), {schema}.erase({schema}.ledger) from public;

grant insert on {schema}.personal_values to audit_writer;
