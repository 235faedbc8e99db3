-- What `cdc-audit source install` puts into the source. Blocks marked "template" go through psycopg.sql, so braces
-- stand there twice. Everything belongs to whoever installs it.

-- name: lock
-- Two installations at once wait for each other; until the transaction ends.
select pg_advisory_xact_lock(7163942016473);

-- name: found
-- What is there already: the schema's owner, and whether the functions are.
select
    (select nspowner::regrole::text from pg_namespace where nspname = 'cdc_audit') as owner,
    (select nspowner from pg_namespace where nspname = 'cdc_audit')
        = (select oid from pg_roles where rolname = current_user) as is_own,
    to_regprocedure('cdc_audit.version()') is not null as has_functions;

-- name: installed
select cdc_audit.version(), cdc_audit.prefix();

-- name: has_key
select exists (select from cdc_audit.context_key where retired_at is null);

-- name: schema
create schema cdc_audit;
comment on schema cdc_audit is 'cdc-audit: says who acts, in the same transaction as the change';

create table cdc_audit.context_key (
    key_id text primary key check (key_id ~ '^[0-9a-z]{1,16}$'),
    inner_pad bytea not null check (length(inner_pad) = 64),
    outer_pad bytea not null check (length(outer_pad) = 64),
    created_at timestamptz not null default clock_timestamp(),
    retired_at timestamptz
);
comment on table cdc_audit.context_key is 'HMAC-SHA256 keys as their pads (RFC 2104); who can read this can forge contexts';

-- Default privileges may have given others rights just now.
do $$
declare
    given record;
begin
    for given in
        select 'schema cdc_audit' as object, acl.grantee
        from pg_namespace n, aclexplode(n.nspacl) as acl
        where n.nspname = 'cdc_audit' and acl.grantee <> n.nspowner
        union
        select 'table cdc_audit.context_key', acl.grantee
        from pg_class c, aclexplode(c.relacl) as acl
        where c.oid = 'cdc_audit.context_key'::regclass and acl.grantee <> c.relowner
    loop
        execute format('revoke all on %s from %s', given.object,
                       case given.grantee when 0 then 'public' else given.grantee::regrole::text end);
    end loop;
end
$$;

-- name: functions
-- template: prefix, version, flush
create or replace function cdc_audit.version() returns integer
language sql immutable parallel safe as $$ select {version} $$;
comment on function cdc_audit.version() is 'which version of these functions this is';

create or replace function cdc_audit.prefix() returns text
language sql immutable parallel safe as $$ select {prefix}::text $$;
comment on function cdc_audit.prefix() is 'what the names of the messages begin with';

-- The key is made here so that it stands in no server log and passes over no wire; gen_random_uuid() gives 122 bits from
-- the server's strong generator. And it goes into no logical stream, ours or another: the row is written while the table is
-- unlogged, and what making it permanent rewrites isn't decoded. That needs an exclusive lock, for which it doesn't wait long.
create or replace function cdc_audit.rotate_key() returns text
language plpgsql set search_path = pg_catalog, pg_temp set lock_timeout = '1s' as $$
declare
    padded bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
                    || decode(repeat('00', 32), 'hex');
    new_id text := left(replace(gen_random_uuid()::text, '-', ''), 12);
begin
    alter table cdc_audit.context_key set unlogged;
    insert into cdc_audit.context_key (key_id, inner_pad, outer_pad)
    select new_id,
           string_agg(set_byte('\x00', 0, get_byte(padded, i) # 54), '' order by i),
           string_agg(set_byte('\x00', 0, get_byte(padded, i) # 92), '' order by i)
    from generate_series(0, 63) as i;
    alter table cdc_audit.context_key set logged;
    return new_id;
end
$$;
comment on function cdc_audit.rotate_key() is 'a new signing key; older ones stay valid until they are retired';

-- Why a context can't be taken, or null. Stable, as convert_to is, so that it is inlined: 2 us instead of 20.
create or replace function cdc_audit.refusal(given jsonb) returns text
language sql stable parallel safe as $$
    select case
        when octet_length(convert_to(given::text, 'UTF8')) > 8192 then 'more than 8192 bytes'
        when jsonb_path_exists(given, 'strict $.**{{16}} ? (@.type() == "object" || @.type() == "array")')
            then 'nested deeper than 16'
    end
$$;

-- Signs and sends. Runs with its caller's rights, and only the owner may read the key: not a way round set_context.
-- Without a key the message goes out unsigned: the application goes on working, and its contexts count as asserted.
create or replace function cdc_audit.emit(kind text, transactional boolean, given jsonb) returns void
language plpgsql as $$
declare
    key record;
    body text;
begin
    select key_id, inner_pad, outer_pad into key
    from cdc_audit.context_key where retired_at is null order by created_at desc, key_id limit 1;
    if found then
        body := (jsonb_build_object(
            'v', 1,
            'kind', kind,
            'xid', case when transactional then pg_current_xact_id()::text end,
            'session_user', session_user,
            'application_name', current_setting('application_name'),
            'client_addr', host(inet_client_addr()),
            'at', clock_timestamp()
        ) || given)::text;
        body := 'v1:' || key.key_id || ':'
            || encode(sha256(key.outer_pad || sha256(key.inner_pad || convert_to(body, 'UTF8'))), 'hex') || ':' || body;
    else
        body := (case kind when 'context' then given -> 'context' else given end)::text;
    end if;
    if transactional then
        perform pg_logical_emit_message(true, {prefix} || '.' || kind, body);
        if kind in ('context', 'session') then
            -- Ends with the transaction, and goes with a savepoint, as the message does.
            perform set_config('cdc_audit.said', pg_current_xact_id()::text, true);
        end if;
    else
        perform pg_logical_emit_message(false, {prefix} || '.' || kind, body{flush});
    end if;
end
$$;

create or replace function cdc_audit.set_context(context jsonb) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    refused text := cdc_audit.refusal(context);
begin
    if jsonb_typeof(context) is distinct from 'object' then
        refused := 'not a JSON object';
    end if;
    if refused is not null then
        raise exception 'cdc_audit.set_context: the context is %', refused using errcode = '22023';
    end if;
    perform cdc_audit.emit('context', true, jsonb_build_object('context', context));
end
$$;
comment on function cdc_audit.set_context(jsonb) is
    'says who acts, from here to the end of the transaction: {{"user_id": ..., "email": ..., "ip_address": ..., ...}}';

-- For callers that bind a string or json. A plain literal comes this way as well.
create or replace function cdc_audit.set_context(context text) returns void
language sql as $$ select cdc_audit.set_context(context::pg_catalog.jsonb) $$;

create or replace function cdc_audit.set_context(context json) returns void
language sql as $$ select cdc_audit.set_context(context::pg_catalog.jsonb) $$;

create or replace function cdc_audit.log_event(
    action text, table_name text default null, record_id text default null, data jsonb default null,
    transactional boolean default true
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    event jsonb := jsonb_build_object('action', action, 'table', table_name, 'record_id', record_id, 'data', data);
    refused text := cdc_audit.refusal(event);
begin
    if refused is not null then
        raise exception 'cdc_audit.log_event: the event is %', refused using errcode = '22023';
    end if;
    if action !~ '^[A-Z][A-Z0-9_]{{0,62}}$' is not false
        or action in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'DDL', 'CONTEXT', 'SNAPSHOT', 'SELECT', 'READ_GAP') then
        raise exception 'cdc_audit.log_event: action must match [A-Z][A-Z0-9_]{{0,62}} and be none of the database''s own'
            using errcode = '22023', hint = 'INSERT, UPDATE, DELETE, TRUNCATE, DDL, CONTEXT, SNAPSHOT, SELECT and READ_GAP are reserved.';
    end if;
    if transactional is not true then
        event := event || jsonb_build_object('wal', pg_current_wal_insert_lsn());
    end if;
    perform cdc_audit.emit('event', transactional is true, event);
end
$$;
comment on function cdc_audit.log_event(text, text, text, jsonb, boolean) is
    'records what the database can''t see: a read, an export, a login';

-- The trigger's WHEN has found that the setting differs from what this transaction has sent. The statement never fails:
-- what set_context would refuse is sent under "raw".
create or replace function cdc_audit.context_from_setting() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    said text := nullif(current_setting(tg_argv[0], true), '');
    context jsonb := '{{}}';
begin
    if said is not null then
        begin
            context := said::jsonb;
            if jsonb_typeof(context) <> 'object' or cdc_audit.refusal(context) is not null then
                context := null;
            end if;
        exception when others then
            context := null;
        end;
        if context is null and current_setting('server_encoding') = 'SQL_ASCII' then
            -- bytes of no known encoding, which may be no UTF-8
            context := jsonb_build_object('raw', regexp_replace(left(said, 1024), '[^ -~]', '?', 'g'));
        end if;
        context := coalesce(context, jsonb_build_object('raw', left(said, 1024)));
        -- What was written before the setting was made was nobody's: else it would take this first context.
        if nullif(current_setting('cdc_audit.emitted', true), '') is null
            and pg_current_xact_id_if_assigned() is not null then
            perform cdc_audit.emit('context', true, '{{"context": {{}}}}');
        end if;
    end if;
    perform cdc_audit.emit('context', true, jsonb_build_object('context', context));
    perform set_config('cdc_audit.emitted', coalesce(said, ''), true);
    return null;
end
$$;

-- The trigger's WHEN has found that this transaction has said nothing yet: then the server says whose session it is.
create or replace function cdc_audit.session_to_stream() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    perform cdc_audit.emit('session', true, '{{}}');
    return null;
end
$$;

revoke all on function
    cdc_audit.rotate_key(), cdc_audit.refusal(jsonb), cdc_audit.emit(text, boolean, jsonb), cdc_audit.context_from_setting(),
    cdc_audit.session_to_stream()
from public;

-- name: grants
-- Once, at the first installation: who narrows them afterwards keeps what he has done.
grant usage on schema cdc_audit to public;
grant execute on function
    cdc_audit.version(), cdc_audit.prefix(), cdc_audit.set_context(jsonb), cdc_audit.set_context(text),
    cdc_audit.set_context(json), cdc_audit.log_event(text, text, text, jsonb, boolean)
to public;

-- name: grant_key
-- template: role
grant select on cdc_audit.context_key to {role};

-- name: new_key
select cdc_audit.rotate_key();

-- name: keys
select key_id, inner_pad, outer_pad from cdc_audit.context_key where retired_at is null order by created_at desc, key_id;

-- name: retire_key
-- Never the last one. The pads are wiped, so the row that the stream shows holds nothing.
update cdc_audit.context_key
set retired_at = clock_timestamp(), inner_pad = decode(repeat('00', 64), 'hex'), outer_pad = decode(repeat('00', 64), 'hex')
where key_id = %(key_id)s and retired_at is null
    and exists (select from cdc_audit.context_key other where other.retired_at is null and other.key_id <> %(key_id)s)
returning key_id;

-- name: trigger
-- template: table, setting
create or replace trigger cdc_audit_context
before insert or update or delete or truncate on {table}
for each statement
when (nullif(current_setting({setting}, true), '') is distinct from nullif(current_setting('cdc_audit.emitted', true), ''))
execute function cdc_audit.context_from_setting({setting});

-- name: session_trigger
-- template: table
-- By its name it comes after the one above, which may have said something. Always: session_replication_role doesn't silence it.
create or replace trigger cdc_audit_session
before insert or update or delete or truncate on {table}
for each statement
when (current_setting('cdc_audit.said', true) is distinct from coalesce(pg_current_xact_id_if_assigned()::text, '-'))
execute function cdc_audit.session_to_stream();
alter table only {table} enable always trigger cdc_audit_session;

-- name: revoke_emit
-- pg_logical_emit_message has other arguments from 17 on. The owner of the functions keeps his right: they run as him.
do $$
declare
    emit regprocedure;
begin
    for emit in
        select oid::regprocedure from pg_proc
        where proname = 'pg_logical_emit_message' and pronamespace = 'pg_catalog'::regnamespace
    loop
        execute format('grant execute on function %s to %s', emit,
                       (select nspowner::regrole from pg_namespace where nspname = 'cdc_audit'));
        execute format('revoke execute on function %s from public', emit);
    end loop;
end
$$;

-- name: can_all_emit
select bool_or(has_function_privilege('public', oid, 'execute')) from pg_proc
where proname = 'pg_logical_emit_message' and pronamespace = 'pg_catalog'::regnamespace;
