-- What values and changed columns the rows of a month that is not over hold, by 256 ids: who looks for a rare one reads few of them.
-- The daemon's writes don't pay for it: rows are digested once they lie there, on another connection. Run as audit_owner.
--
-- An index on images costs 20 to 50 us for each row that is written. This is next to the table, is thrown away when the month has its
-- look-up indexes, and is only ever a hint: what it names is compared again, what it does not cover yet is read. It is no part of the
-- proof: of a row that was altered by force it does not know the new values. verify finds that row.

create table {schema}.digests (
    partition name      not null,
    first_id  bigint    not null,
    end_id    bigint    not null, -- exclusive
    terms     integer[] not null, -- hashtext of each changed column's name, and of column=text of each value in an image
    primary key (partition, first_id)
);

alter table {schema}.digests alter terms set storage external;

comment on table {schema}.digests is
    'What the rows of months without look-up indexes hold, hashed, by 256 ids. Made from audit_logs by digest_rows(); no part of the proof.';

-- Digest up to 256 times 256 ids that the ledger holds; the id after them, or null: none is left, or another session is at it.
create function {schema}.digest_rows() returns bigint
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    settled bigint;
    leaf    name;
    first   bigint;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('cdc-audit digest_rows ' || {schema_name}, 0)) then
        return null;
    end if;
    delete from {schema}.digests as d
     where to_regclass(format('%I.%I', {schema_name}, d.partition || '_images')) is not null
        or to_regclass(format('%I.%I', {schema_name}, d.partition)) is null;
    select (first_id + row_count) / 256 * 256 into settled from {schema}.ledger order by block desc limit 1;
    for leaf in
        select c.relname
          from pg_inherits as i
          join pg_class as c on c.oid = i.inhrelid
         where i.inhparent = format('%I.audit_logs', {schema_name})::regclass and c.relname <> 'audit_logs_default'
           and to_regclass(format('%I.%I', {schema_name}, c.relname || '_images')) is null
         order by c.relname desc
    loop
        select coalesce(max(end_id), 0) into first from {schema}.digests where partition = leaf;
        execute format('select min(id) / 256 * 256 from %I.%I where id >= $1', {schema_name}, leaf) into first using first;
        continue when first is null or settled is null or first >= settled;
        execute format('insert into %I.digests
            select $1, a.id / 256 * 256, (a.id / 256 + 1) * 256, coalesce(array_agg(distinct held.term) filter (where held.term is not null), ''{{}}'')
              from %I.%I as a
              left join lateral (
                  select hashtext(name) from unnest(a.changed_fields) as name
                  union all
                  select hashtext(key || ''='' || value)
                    from jsonb_each_text(case jsonb_typeof(a.old_data) when ''object'' then a.old_data end)
                  union all
                  select hashtext(key || ''='' || value)
                    from jsonb_each_text(case jsonb_typeof(a.new_data) when ''object'' then a.new_data end)
              ) as held (term) on true
             where a.id >= $2 and a.id < $3
             group by a.id / 256', {schema_name}, {schema_name}, leaf)
          using leaf, first, least(settled, first + 65536);
        return least(settled, first + 65536);
    end loop;
    return null;
end
$$;

grant select on {schema}.digests to audit_admin;
revoke all on function {schema}.digest_rows() from public;
grant execute on function {schema}.digest_rows() to audit_writer;
