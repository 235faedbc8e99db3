-- name: source
create table public.visits (id bigint generated always as identity primary key, page text, at timestamptz default now());

-- name: visit
insert into public.visits (page) select 'page' from cdc_audit.set_context('{"user_id": "u42"}');

-- name: notify
create function public.tell() returns trigger language plpgsql as $$
begin
    perform pg_catalog.pg_notify('durable', (new.first_id + new.row_count - 1)::text);
    return null;
end
$$;
create trigger tell after insert on audit.ledger for each row execute function public.tell();

-- name: count
select count(*) from public.visits

-- name: committed_at
select extract(epoch from created_at)::float8 from audit.audit_logs order by id

-- name: plain
create table public.plain (
    id bigint generated always as identity primary key, at timestamptz default clock_timestamp()
);
create function public.tell_row() returns trigger language plpgsql as $$
begin
    perform pg_catalog.pg_notify('durable', new.id::text);
    return null;
end
$$;
create trigger tell_row after insert on public.plain for each row execute function public.tell_row();

-- name: plain_row
insert into public.plain default values

-- name: plain_began_at
select id, extract(epoch from at)::float8 from public.plain
