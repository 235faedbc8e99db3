-- name: tables
create table public.orders (
    id bigint primary key,
    customer text,
    quantity int,
    price numeric(12, 2),
    ordered_at timestamptz,
    attributes jsonb
);
alter table public.orders replica identity full;

create procedure public.load(transactions int)
language plpgsql as $$
begin
    for t in 1..transactions loop
        perform cdc_audit.set_context('{"user_id": "u42", "email": "someone@example.org", "ip_address": "10.0.0.9"}');
        insert into orders
        select t * 10::bigint + n, 'customer ' || n, n, n * 12.50, clock_timestamp(), jsonb_build_object('channel', 'web', 'lines', n)
        from generate_series(0, 9) as n;
        update orders set quantity = quantity + 1, price = price + 0.10 where id between t * 10 and t * 10 + 9;
        commit;
    end loop;
end
$$;

-- name: load
call public.load(%s)

-- name: position
select pg_current_wal_lsn()::text

-- name: stored
select coalesce(sum(row_count), 0)::bigint from audit.ledger

-- name: columns
select string_agg(quote_ident(attname), ', ' order by attnum)
from pg_attribute where attrelid = 'audit.audit_logs'::regclass and attnum > 0 and not attisdropped
