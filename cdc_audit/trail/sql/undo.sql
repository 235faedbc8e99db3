-- name: head
begin;
-- Images are compared as they were taken.
set local timezone = 'UTC';
set local datestyle = 'ISO';
set local intervalstyle = 'postgres';
set local bytea_output = 'hex';
set local extra_float_digits = 3;

create temporary table undo_later (place bigint generated always as identity, change jsonb) on commit drop;

-- Takes one change back, if its row is still what the change made of it. What a foreign key refuses for now is kept for later; so is
-- a deletion that would change or delete other rows by a foreign key.
create function pg_temp.take_back(change jsonb) returns void language plpgsql as $take_back$
declare
    target  constant regclass := pg_catalog.format('%I.%I', change ->> 'schema', change ->> 'table')::regclass;
    present constant jsonb := nullif(change -> 'present', 'null');
    past    constant jsonb := nullif(change -> 'past', 'null');
    same    text := 'pg_catalog.to_jsonb(t) - array(select k from pg_catalog.jsonb_object_keys(pg_catalog.to_jsonb(t)) as k
                                                     where not $1 ? k) = $1';
    record  text;
    columns text;
    hits    bigint;
    refers  record;
    waits   record;
begin
    -- One that waits for a foreign key and leaves the record as this one found it becomes one with it: what was made and taken away in
    -- between need not be possible. Where their columns differ, this one waits, too.
    select l.place, l.change into waits
      from pg_temp.undo_later as l
     where l.change ->> 'schema' = take_back.change ->> 'schema' and l.change ->> 'table' = take_back.change ->> 'table'
       and (l.change -> 'past' @> present or present @> (l.change -> 'past'))
     order by l.change -> 'past' = present desc, l.place desc
     limit 1;
    if found and waits.change -> 'past' <> present then
        insert into pg_temp.undo_later (change) values (take_back.change);
        return;
    elsif found and past is null and waits.change -> 'present' = 'null' then
        delete from pg_temp.undo_later as l where l.place = waits.place;
        return;
    elsif found then
        update pg_temp.undo_later as l
           set change = l.change || pg_catalog.jsonb_build_object('past', coalesce(present || past, 'null'))
         where l.place = waits.place;
        return;
    end if;
    select pg_catalog.string_agg(pg_catalog.format('t.%1$I = seen.%1$I', attname), ' and ')
      into record
      from pg_catalog.pg_index
      join pg_catalog.pg_attribute on attrelid = indrelid and attnum = any (indkey)
     where indrelid = target and indisprimary and present ? attname::text;
    select pg_catalog.string_agg(pg_catalog.quote_ident(attname), ', ' order by attnum)
      into columns
      from pg_catalog.pg_attribute
     where attrelid = target and attnum > 0 and not attisdropped and attgenerated = '' and past ? attname::text
       and (present is null or past -> attname::text is distinct from present -> attname::text);
    same := pg_catalog.concat_ws(' and ', record, same);
    if past is null then
        for refers in
            select conrelid::regclass as place, pg_catalog.string_agg(pg_catalog.format('r.%I = seen.%I', own.attname, its.attname), ' and ')
                   || case when conrelid = target then ' and pg_catalog.to_jsonb(r) <> pg_catalog.to_jsonb(seen)' else '' end as so
              from pg_catalog.pg_constraint
             cross join lateral rows from (pg_catalog.unnest(conkey), pg_catalog.unnest(confkey)) as k (own, its)
              join pg_catalog.pg_attribute as own on own.attrelid = conrelid and own.attnum = k.own
              join pg_catalog.pg_attribute as its on its.attrelid = confrelid and its.attnum = k.its
             where contype = 'f' and confrelid = target and confdeltype in ('c', 'n', 'd')
             group by pg_constraint.oid, conrelid
        loop
            execute pg_catalog.format('select count(*) from %s as r, pg_catalog.jsonb_populate_record(null::%s, $1) as seen where %s',
                                      refers.place, target, refers.so) into hits using present;
            if hits > 0 then
                raise foreign_key_violation;
            end if;
        end loop;
        execute pg_catalog.format('delete from %1$s as t using pg_catalog.jsonb_populate_record(null::%1$s, $1) as seen where %2$s',
                                  target, same) using present;
    elsif present is null then
        execute pg_catalog.format('insert into %1$s (%2$s) overriding system value
                                   select %2$s from pg_catalog.jsonb_populate_record(null::%1$s, $1)', target, columns) using past;
    elsif columns is null then
        execute pg_catalog.format('select from %1$s as t, pg_catalog.jsonb_populate_record(null::%1$s, $1) as seen where %2$s',
                                  target, same) using present;
    else
        execute pg_catalog.format('update %1$s as t
                                      set (%2$s) = (select %2$s from pg_catalog.jsonb_populate_record(null::%1$s, $2))
                                     from pg_catalog.jsonb_populate_record(null::%1$s, $1) as seen where %3$s',
                                  target, columns, same) using present, past;
    end if;
    get diagnostics hits = row_count;
    if hits <> 1 then
        raise exception 'row % of the trail: the record has changed since; nothing is undone', change ->> 'id'
            using errcode = 'serialization_failure';
    end if;
exception
    when foreign_key_violation then
        insert into pg_temp.undo_later (change) values (take_back.change);
end
$take_back$;

-- name: context
select cdc_audit.set_context({context}::jsonb);

-- name: change
select pg_temp.take_back({change}::jsonb);

-- name: tail
do $finish$
declare
    waiting jsonb[];
    change  jsonb;
    before  bigint;
begin
    loop
        select pg_catalog.array_agg(l.change order by l.place) into waiting from pg_temp.undo_later as l;
        exit when waiting is null;
        before := pg_catalog.cardinality(waiting);
        delete from pg_temp.undo_later;
        foreach change in array waiting loop
            perform pg_temp.take_back(change);
        end loop;
        if before = (select count(*) from pg_temp.undo_later) then
            raise exception 'a foreign key refuses; nothing is undone' using errcode = 'foreign_key_violation';
        end if;
    end loop;
end
$finish$;
drop function pg_temp.take_back(jsonb);
commit;
