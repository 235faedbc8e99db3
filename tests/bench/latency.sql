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
