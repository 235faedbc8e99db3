-- name: budget
create table public.orders (
    id bigint primary key,
    customer text,
    quantity int,
    price numeric(12, 2),
    ordered_at timestamptz,
    attributes jsonb
);
alter table public.orders replica identity full;

create procedure public.load(rows bigint)
language plpgsql as $$
declare
    base bigint := (select coalesce(max(id), -1) + 1 from orders);
begin
    for t in 1..rows / 20 loop
        perform cdc_audit.set_context('{"user_id": "u42", "email": "someone@example.org", "ip_address": "10.0.0.9"}');
        insert into orders
        select base + n, 'customer ' || n, n, n * 12.50, clock_timestamp(), jsonb_build_object('channel', 'web', 'lines', n)
        from generate_series(0, 9) as n;
        update orders set quantity = quantity + 1, price = price + 0.10 where id between base and base + 9;
        base := base + 10;
        commit;
    end loop;
end
$$;

-- name: wide
do $$
begin
    execute (
        select 'create table public.wide (id bigint primary key, ' || string_agg(format('c%s %s', n, (array[
            'text default md5(random()::text)',
            'int default (random() * 1e6)::int',
            'numeric(12, 2) default (random() * 1e6)::numeric(12, 2)',
            'timestamptz default clock_timestamp()',
            'boolean default random() < 0.5',
            'bigint default (random() * 1e12)::bigint'])[n % 6 + 1]), ', ' order by n) || ')'
        from generate_series(1, 39) as n);
end
$$;
alter table public.wide replica identity full;

create procedure public.load(rows bigint)
language plpgsql as $$
begin
    for t in 0..rows / 20 - 1 loop
        perform cdc_audit.set_context('{"user_id": "u42"}');
        insert into wide (id) select t * 10 + n from generate_series(0, 9) as n;
        update wide set c1 = c1 + 1, c6 = md5(c6) where id between t * 10 and t * 10 + 9;
        commit;
    end loop;
end
$$;

-- name: one_row
create table public.visits (id bigint primary key, page text, at timestamptz);
alter table public.visits replica identity full;

create procedure public.load(rows bigint)
language plpgsql as $$
begin
    for t in 1..rows loop
        perform cdc_audit.set_context('{"user_id": "u42"}');
        insert into visits values (t, 'page ' || t, clock_timestamp());
        commit;
    end loop;
end
$$;

-- name: large_transaction
create table public.entries (
    id bigint primary key,
    account text,
    quantity int,
    amount numeric(12, 2),
    booked_at timestamptz,
    attributes jsonb
);

create procedure public.load(rows bigint)
language plpgsql as $$
begin
    perform cdc_audit.set_context('{"user_id": "u42"}');
    insert into entries
    select n, 'account ' || n % 1000, n % 100, n * 0.01, clock_timestamp(), jsonb_build_object('batch', n % 10)
    from generate_series(1, rows) as n;
end
$$;

-- name: large_values
create table public.documents (id bigint primary key, title text, body text);
alter table public.documents replica identity full;

create procedure public.load(rows bigint)
language plpgsql as $$
begin
    for t in 1..rows / 2 loop
        perform cdc_audit.set_context('{"user_id": "u42"}');
        insert into documents values (t, 'draft', repeat(md5(t::text), 3125));
        update documents set title = 'final' where id = t;
        commit;
    end loop;
end
$$;

-- name: tpcb
alter table public.pgbench_accounts replica identity full;
alter table public.pgbench_tellers replica identity full;
alter table public.pgbench_branches replica identity full;

-- name: settled
-- What came before it is on disk when it has come back, and the slot's readers see its end.
select pg_logical_emit_message(true, 'bench', 'end')

-- name: position
select pg_current_wal_lsn()::text

-- name: stored
select coalesce(sum(row_count), 0)::bigint from ledger
