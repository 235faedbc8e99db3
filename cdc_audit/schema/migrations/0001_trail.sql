-- The trail, its ledger, and what keeps both from being changed. Run as audit_owner, in a schema that it owns.

create table {schema}.schema_version (
    version    int primary key,
    name       text not null,
    applied_at timestamptz not null default now()
);

create table {schema}.audit_logs (
    id               bigint      not null,
    created_at       timestamptz not null,
    schema_name      text        not null,
    table_name       text        not null,
    record_id        text,
    action           text        not null,
    old_data         jsonb,
    new_data         jsonb,
    changed_fields   text[],
    user_id          text,
    user_email       text,
    ip_address       inet,
    user_agent       text,
    context          jsonb,
    context_trust    text        not null,
    db_user          text,
    application_name text,
    capture          text        not null,
    unchanged_toast  text[],
    partition_name   text,
    xid              bigint,
    commit_lsn       pg_lsn      not null,
    seq              int         not null,
    row_hash         bytea       not null,
    primary key (id, created_at)
) partition by range (created_at);

comment on table {schema}.audit_logs is 'One row for each change on the source, in commit order. Written by cdc-audit; can only be added to.';

-- Newest first, and time ranges.
create index audit_logs_created_at on {schema}.audit_logs (created_at);

-- Everything that is asked for by equality. One BRIN index of Bloom filters, because
--  * a key of any length can be indexed (a btree refuses above 2.7 kB, and the row with it);
--  * a row costs about 1 us however large the table is, where a btree or SP-GiST index on random keys costs 3 to 4 us, and once it
--    has outgrown memory a page image of WAL for each row;
--  * a hash index is no way out: each insert of a key that is there already walks all its pages (10,000 rows/s after
--    400,000 changes of one record).
-- Measured: one record among 600,000 rows in 2 to 3 ms, one of 8,000 users in 10 ms, growing in line with the table. Of small ranges
-- (8 pages, some 150 rows) the planner expects enough to prefer them to reading everything, from about 50 MB a partition on.
create index audit_logs_lookup on {schema}.audit_logs using brin (
    table_name text_bloom_ops (n_distinct_per_range = 32),
    record_id  text_bloom_ops (n_distinct_per_range = 256),
    user_id    text_bloom_ops (n_distinct_per_range = 128),
    user_email text_bloom_ops (n_distinct_per_range = 128),
    created_at,
    commit_lsn,
    xid
) with (pages_per_range = 8);

-- A BRIN index learns of new rows when the table is vacuumed, so that happens by rows added, not by the table's growth in percent.
create table {schema}.audit_logs_default partition of {schema}.audit_logs default
    with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000);

create table {schema}.ledger (
    block             bigint      primary key,
    kind              text        not null,
    first_id          bigint      not null,
    row_count         bigint      not null,
    system_identifier text        not null,
    timeline          int         not null,
    slot              text        not null,
    start_lsn         pg_lsn      not null,
    end_lsn           pg_lsn      not null,
    last_commit_at    timestamptz,
    written_at        timestamptz not null,
    rows_root         bytea       not null,
    prev_hash         bytea       not null,
    detail            jsonb,
    key_id            text,
    block_hash        bytea       not null,
    signature         bytea
);

comment on table {schema}.ledger is 'The checkpoint and the proof: one row for each block of audit_logs. Can only be added to.';

create function {schema}.refuse_change() returns trigger
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'the audit trail can only be added to: % of %.% is refused', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege';
end
$$;

-- Bring one table into the state in which changes are refused, whatever was done to it. Changes nothing that is right.
-- A partition gets its row trigger from the root, but TRUNCATE of a partition doesn't fire the root's trigger.
create function {schema}.protect(relation text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    target  constant regclass := format('%I.%I', {schema_name}, relation)::regclass;
    trigger name;
begin
    if not exists (select from pg_trigger where tgrelid = target and tgname = 'refuse_change') then
        execute format('create trigger refuse_change before update or delete on %s
                        for each row execute function %I.refuse_change()', target, {schema_name});
    end if;
    if not exists (select from pg_trigger where tgrelid = target and tgname = 'refuse_truncate') then
        execute format('create trigger refuse_truncate before truncate on %s
                        for each statement execute function %I.refuse_change()', target, {schema_name});
    end if;
    for trigger in
        select tgname from pg_trigger
         where tgrelid = target and tgname in ('refuse_change', 'refuse_truncate') and tgenabled <> 'A'
    loop
        execute format('alter table %s enable always trigger %I', target, trigger);
    end loop;
    execute format('revoke all on %s from public', target);
    execute format('revoke update, delete, truncate on %s from audit_owner', target);
    execute format('grant select on %s to audit_admin', target);
end
$$;

-- The partition of a month (any day of it), made if it is missing. True: the month has its own partition. False: its rows go to
-- the default partition, because some are there already, because the month is out of all reason, or because a
-- lock wasn't to be had within 3 s (another call may succeed then). A month begins at midnight UTC in every session.
--
-- ATTACH, unlike CREATE TABLE ... PARTITION OF, doesn't wait for those who write to other partitions; it does need the default
-- partition to itself for a moment, for which it must not queue long, since others queue behind it.
create function {schema}.ensure_partition(month date) returns boolean
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
    root  constant regclass := format('%I.audit_logs', {schema_name})::regclass;
    leaf  text;
    first text;
    after text;
    taken boolean;
begin
    if month is null or not isfinite(month) then
        raise exception 'ensure_partition needs a date' using errcode = 'invalid_parameter_value';
    end if;
    if month < date '2000-01-01' or month > (now() at time zone 'UTC')::date + 731 then
        return false;
    end if;
    first := to_char(month, 'YYYY-MM') || '-01';
    after := to_char(first::date + interval '1 month', 'YYYY-MM-DD');
    leaf := 'audit_logs_' || to_char(month, 'YYYY_MM');
    if exists (select from pg_inherits where inhparent = root
                and inhrelid = to_regclass(format('%I.%I', {schema_name}, leaf))) then
        return true;
    end if;
    -- One session at a time. Of the trail's tables, this is the one that only the owner may lock and that no row goes to.
    lock table {schema}.schema_version in share update exclusive mode;
    if exists (select from pg_inherits where inhparent = root
                and inhrelid = to_regclass(format('%I.%I', {schema_name}, leaf))) then
        return true;
    end if;
    execute format('select exists (select from %I.audit_logs_default where created_at >= %L and created_at < %L)',
                   {schema_name}, first || ' 00:00:00+00', after || ' 00:00:00+00') into taken;
    if taken then
        return false;
    end if;
    execute format('create table %I.%I (like %s) with (autovacuum_vacuum_insert_scale_factor = 0,
                    autovacuum_vacuum_insert_threshold = 100000)', {schema_name}, leaf, root);
    execute format('alter table %s attach partition %I.%I for values from (%L) to (%L)',
                   root, {schema_name}, leaf, first || ' 00:00:00+00', after || ' 00:00:00+00');
    execute format('select %I.protect(%L)', {schema_name}, leaf);
    return true;
exception
    -- Rows of that month came to the default partition meanwhile, or locks are busy, or a table has that name.
    when check_violation or lock_not_available or deadlock_detected or duplicate_table then
        return false;
end
$$;

select {schema}.protect('audit_logs'), {schema}.protect('audit_logs_default'), {schema}.protect('ledger');

revoke all on schema {schema} from public;
revoke all on {schema}.schema_version from public;
revoke all on function {schema}.refuse_change(), {schema}.protect(text), {schema}.ensure_partition(date) from public;

grant usage on schema {schema} to audit_writer, audit_admin;
grant insert on {schema}.audit_logs, {schema}.ledger to audit_writer;
grant select on {schema}.ledger, {schema}.schema_version to audit_writer;
grant execute on function {schema}.ensure_partition(date) to audit_writer;
grant select on {schema}.schema_version to audit_admin;
