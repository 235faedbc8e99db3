-- What `cdc-audit source install --reads` adds: how the follower of the server's log sends what pgAudit says of reads, and keeps
-- its positions in the same transaction. Blocks marked "template" go through psycopg.sql.

-- name: found
select to_regclass('cdc_audit.read_file') is not null;

-- name: tables
create table if not exists cdc_audit.read_follower (
    name text primary key,
    started_at timestamptz not null default clock_timestamp()
);
comment on table cdc_audit.read_follower is 'who follows log files: one for each host of a server';
create table if not exists cdc_audit.read_file (
    follower text not null references cdc_audit.read_follower,
    fingerprint bytea not null,
    name text not null,
    taken_bytes bigint not null check (taken_bytes >= 0),
    is_final boolean not null,
    primary key (follower, fingerprint)
);
comment on table cdc_audit.read_file is 'how far each log file has been taken; moves with the messages, in one transaction';
do $$
declare
    given record;
begin
    for given in
        select distinct c.oid::regclass as relation, acl.grantee
        from pg_class c, aclexplode(c.relacl) as acl
        where c.oid in ('cdc_audit.read_follower'::regclass, 'cdc_audit.read_file'::regclass) and acl.grantee <> c.relowner
    loop
        execute format('revoke all on %s from %s', given.relation,
                       case given.grantee when 0 then 'public' else given.grantee::regrole::text end);
    end loop;
end
$$;

-- name: functions
-- A follower's first start: where the files end that are there then. False if it has started before.
create or replace function cdc_audit.start_reads(follower text, files jsonb) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into cdc_audit.read_follower (name) values (follower) on conflict do nothing;
    if not found then
        return false;
    end if;
    insert into cdc_audit.read_file
    select follower, decode(f ->> 'fingerprint', 'hex'), f ->> 'name', (f ->> 'position')::bigint, (f ->> 'is_final')::boolean
    from jsonb_array_elements(files) as f;
    return true;
end
$$;

create or replace function cdc_audit.read_positions(follower text)
returns table (fingerprint bytea, name text, "position" bigint, is_final boolean)
language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select f.fingerprint, f.name, f.taken_bytes, f.is_final from cdc_audit.read_file f where f.follower = $1
$$;

-- Sends what stands in a file between two positions, and moves the position: all or nothing. Another one that has moved it
-- meanwhile makes this fail, so each line is sent once.
create or replace function cdc_audit.send_reads(
    follower text, fingerprint bytea, name text, from_bytes bigint, to_bytes bigint, is_final boolean, reads text[]
) returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    one text;
begin
    if from_bytes = 0 then
        insert into cdc_audit.read_file values (follower, fingerprint, name, 0, false) on conflict do nothing;
    end if;
    update cdc_audit.read_file f
    set taken_bytes = to_bytes, name = send_reads.name, is_final = send_reads.is_final
    where f.follower = send_reads.follower and f.fingerprint = send_reads.fingerprint and f.taken_bytes = from_bytes;
    if not found then
        raise exception 'cdc_audit.send_reads: the file is at another position' using errcode = '55006';
    end if;
    foreach one in array reads loop
        if octet_length(one) > 8192 then
            raise exception 'cdc_audit.send_reads: a read has more than 8192 bytes' using errcode = '22023';
        end if;
        perform cdc_audit.emit('read', true, jsonb_build_object('read', one::jsonb));
    end loop;
end
$$;

revoke all on function
    cdc_audit.start_reads(text, jsonb), cdc_audit.read_positions(text),
    cdc_audit.send_reads(text, bytea, text, bigint, bigint, boolean, text[])
from public;

-- name: grant
-- template: role, database
-- pgAudit of this role's own statements would tell of each sending, and so on for ever.
grant usage on schema cdc_audit to {role};
grant execute on function
    cdc_audit.start_reads(text, jsonb), cdc_audit.read_positions(text),
    cdc_audit.send_reads(text, bytea, text, bigint, bigint, boolean, text[])
to {role};
alter role {role} in database {database} set pgaudit.log = 'none';
alter role {role} in database {database} set pgaudit.role = '';

-- name: followers
-- The roles that were granted the right to send.
select pg_get_userbyid(acl.grantee)::text
from pg_proc p, aclexplode(p.proacl) as acl
where p.pronamespace = 'cdc_audit'::regnamespace and p.proname = 'send_reads' and acl.grantee not in (0, p.proowner)
order by 1;

-- name: ungrant
-- template: role, database
alter role {role} in database {database} reset pgaudit.log;
alter role {role} in database {database} reset pgaudit.role;

-- name: drop
drop function if exists
    cdc_audit.start_reads(text, jsonb), cdc_audit.read_positions(text),
    cdc_audit.send_reads(text, bytea, text, bigint, bigint, boolean, text[]);
drop table if exists cdc_audit.read_file, cdc_audit.read_follower;

-- name: facts
-- What the follower's own session is, and what the server logs.
select
    current_setting('server_version_num')::int / 10000 as major,
    pg_is_in_recovery() as in_recovery,
    current_user::text as role,
    current_database()::text as database,
    coalesce(has_function_privilege(to_regprocedure(
        'cdc_audit.send_reads(text, bytea, text, bigint, bigint, boolean, text[])'), 'execute'), false) as may_send,
    current_setting('pgaudit.log_catalog', true) is not null as has_pgaudit,
    coalesce(current_setting('pgaudit.log', true), '') as audited,
    coalesce(current_setting('pgaudit.role', true), '') as audited_by,
    coalesce(current_setting('pgaudit.log_rows', true), 'off') = 'on' as has_rows,
    current_setting('logging_collector') = 'on' as has_collector,
    'jsonlog' = any (regexp_split_to_array(lower(current_setting('log_destination')), '[\s,"]+')) as has_json,
    current_setting('log_timezone') as log_timezone,
    current_setting('server_encoding') as encoding;

-- name: start
select cdc_audit.start_reads(%s, %s::jsonb);

-- name: positions
select fingerprint, name, "position", is_final from cdc_audit.read_positions(%s);

-- name: send
select cdc_audit.send_reads(%s, %s, %s, %s, %s, %s, %s::text[]);

-- name: snapshot
select pg_current_snapshot()::text;
