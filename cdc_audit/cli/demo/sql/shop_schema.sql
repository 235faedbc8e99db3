-- The demo's shop, as its own migrations would make it, and the two roles that work on it.

create table users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null unique,
    password_hash text not null,
    active boolean not null default true
);

create table orders (
    id bigint generated always as identity primary key,
    user_id bigint not null references users,
    item text not null,
    total numeric(10, 2) not null,
    status text not null default 'open',
    shipping jsonb
);

create table payments (
    id bigint generated always as identity primary key,
    order_id bigint not null references orders on delete cascade,
    amount numeric(10, 2) not null,
    method text not null,
    paid_at timestamptz not null default now()
);

create role shop_app login;
create role shop_dba login;
grant select, insert, update, delete on users, orders, payments to shop_app, shop_dba;

-- The daemon's own role: it may read the change stream, and no table.
create role cdc_audit_reader login replication;
