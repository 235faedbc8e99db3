-- What is asked of a large trail is found by an index, and the daemon's writes don't pay for it. Run as audit_owner.
--
-- Of the month that is being written, BRIN indexes serve: next to nothing a row, and some milliseconds a question. They grow in line
-- with the trail, though, so a month that is over gets look-up indexes, once, and none of them refuses a row that comes late:
--
--  record, user  SP-GiST takes a key of any length, and any number of equal ones. (A btree refuses above 2.7 kB, and the row with
--                it; a hash index walks all entries of a key that is there already.)
--  terms         What has few values, as sets of one; GIN keeps the rows of a value in one or two bytes each. Its keys are cut,
--                since GIN, too, refuses long ones: who asks compares the column as well.
--  images        Each value of old and new images, hashed.
--  address       Networks are ranges.
--  transaction   Lowest and highest in each 32 pages: rows lie in the order of commits.
--
-- Measured on a month of 849,000 rows of 413 bytes (images of 4 columns): record 32, user 34, terms 10, images 52, address 7 bytes
-- a row, 30 to 40 us a row to build.

-- Of the month that is written, for questions that the index of 0001 doesn't serve.
create function {schema}.add_open_index(leaf text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('create index %I on %I.%I using brin (
                        action           text_bloom_ops (n_distinct_per_range = 16),
                        application_name text_bloom_ops (n_distinct_per_range = 16),
                        context_trust    text_bloom_ops (n_distinct_per_range = 16),
                        ip_address       inet_bloom_ops (n_distinct_per_range = 64),
                        ip_address       inet_inclusion_ops
                    ) with (pages_per_range = 16)', leaf || '_open', {schema_name}, leaf);
end
$$;

-- Users act by the transaction, so that their rows lie close together, with long times between. The planner takes rows for evenly
-- spread, and would, for the newest few of a user, read each month from its end until it meets one. Users that it takes for rarer
-- than they are, it looks up. Of the busiest, the most common values, it knows how often they are.
create function {schema}.say_users_are_rare(leaf text) returns void
language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('alter table %I.%I alter column user_id set (n_distinct = -0.1), alter column user_email set (n_distinct = -0.1)',
                   {schema_name}, leaf);
end
$$;

-- As partitions from now on, which ensure_partition makes. Only those without rows get the index: others would have to be read, and
-- be waited for.
do $$
declare
    patience constant text := current_setting('lock_timeout');
    leaf     name;
    used     boolean;
begin
    perform set_config('lock_timeout', '1s', true);
    for leaf in
        select c.relname
          from pg_catalog.pg_inherits as i
          join pg_catalog.pg_class as c on c.oid = i.inhrelid
         where i.inhparent = pg_catalog.format('%I.audit_logs', {schema_name})::regclass and c.relname <> 'audit_logs_default'
    loop
        begin
            perform {schema}.say_users_are_rare(leaf);
            execute pg_catalog.format('select exists (select from %I.%I)', {schema_name}, leaf) into used;
            if not used then
                perform {schema}.add_open_index(leaf);
            end if;
        exception
            when lock_not_available then null;
        end;
    end loop;
    perform set_config('lock_timeout', patience, true);
end
$$;

-- The look-up indexes that months lack although they are over: their end is more than a day behind the newest row. (Of a trail at
-- rest the last month is not over.) The default partition has none.
create function {schema}.missing_indexes() returns table (partition name, index name, definition text)
language plpgsql stable set search_path = pg_catalog, pg_temp
as $$
declare
    newest timestamptz;
begin
    select least(last_commit_at, now()) into newest from {schema}.ledger where last_commit_at is not null order by block desc limit 1;
    return query
    select c.relname, wanted.index, format('create index %I on %I.%I using %s', wanted.index, {schema_name}, c.relname, kind.definition)
      from pg_inherits as i
      join pg_class as c on c.oid = i.inhrelid
     cross join (values (1, 'record', 'spgist (record_id)'),
                        (2, 'user', 'spgist (user_id)'),
                        (3, 'terms', 'gin ((array["left"(table_name, 64)]), (array["left"(action, 64)]),'
                                     ' (array["left"(user_email, 64)]), (array["left"(application_name, 64)]),'
                                     ' (array[context_trust]), changed_fields)'),
                        (4, 'images', 'gin (old_data jsonb_path_ops, new_data jsonb_path_ops)'),
                        (5, 'address', 'btree (ip_address)'),
                        (6, 'transaction', 'brin (xid, commit_lsn) with (pages_per_range = 32)')) as kind (place, name, definition)
     cross join lateral (select (c.relname || '_' || kind.name)::name) as wanted (index)
     where i.inhparent = format('%I.audit_logs', {schema_name})::regclass
       and substring(pg_get_expr(c.relpartbound, c.oid), 'TO \(''([^'']+)''\)')::timestamptz + interval '1 day' <= newest
       and not exists (select from pg_index as x join pg_class as named on named.oid = x.indexrelid
                        where x.indrelid = c.oid and named.relname = wanted.index)
     order by c.relname desc, kind.place;
end
$$;

-- Build the first of them; its name, or null: none is missing, or another session is at it. One index a call and transaction, so
-- that who is stopped has lost no more than that. Readers are not held up. Who writes to that month is, until the index is there. A
-- month that is being written to is given up after 3 s (lock_not_available), and nothing has happened.
create function {schema}.build_index() returns name
language plpgsql security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '3s'
as $$
declare
    missing record;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('cdc-audit build_index ' || {schema_name}, 0)) then
        return null;
    end if;
    select * into missing from {schema}.missing_indexes() limit 1;
    if not found then
        return null;
    end if;
    execute missing.definition;
    if missing.index = missing.partition || '_terms' then  -- of an index on expressions the planner knows nothing before
        execute format('analyze %I.%I', {schema_name}, missing.partition);
    end if;
    return missing.index;
end
$$;

-- As in 0001; with add_open_index and say_users_are_rare.
create or replace function {schema}.ensure_partition(month date) returns boolean
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
    perform {schema}.add_open_index(leaf), {schema}.say_users_are_rare(leaf);
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

-- The block of a row; and the few that say what is missing, was erased, or was opened, among the very many that say nothing of the kind.
create index ledger_rows on {schema}.ledger (first_id) where row_count > 0;
create index ledger_remarks on {schema}.ledger (block) where kind not in ('data', 'heartbeat');

revoke all on function {schema}.add_open_index(text), {schema}.say_users_are_rare(text), {schema}.missing_indexes(), {schema}.build_index() from public;
grant execute on function {schema}.build_index() to audit_writer;
grant execute on function {schema}.missing_indexes() to audit_writer, audit_admin;
