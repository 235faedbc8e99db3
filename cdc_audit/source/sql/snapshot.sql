-- Reading tables as of a snapshot that a temporary slot has exported.

-- name: settings
-- No timeout may end a long read; transaction_timeout came with 17. With row_security off, rows that a policy hides are an error.
select set_config(name, case name when 'lock_timeout' then '5s' when 'row_security' then 'off' else '0' end, false)
from pg_settings
where name in ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout', 'lock_timeout', 'row_security');

-- name: begin
begin isolation level repeatable read, read only;

-- name: adopt
-- template: snapshot
set transaction snapshot {snapshot};

-- name: taken_at
select clock_timestamp()::text;

-- name: readable
-- In the order asked for; a table that was dropped since the snapshot has no privileges to ask for.
select
    coalesce(has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select'), true) as may_read,
    coalesce(row_security_active(c.oid), false) as hides_rows,
    greatest(c.reltuples, 0)::bigint as estimate
from unnest(%(schemas)s::text[], %(tables)s::text[]) with ordinality as wanted (schema, "table", place)
join pg_namespace n on n.nspname = wanted.schema
join pg_class c on c.relnamespace = n.oid and c.relname = wanted."table"
order by place;

-- name: lock
-- template: table
lock table only {table} in access share mode;

-- name: rewritten
-- TRUNCATE and rewrites of a table give it a new file, in which an older snapshot sees no rows. pg_class is read as of the
-- snapshot, the function tells the file as it is now.
select n.nspname::text || '.' || c.relname::text
from unnest(%(schemas)s::text[], %(tables)s::text[]) as wanted (schema, "table")
join pg_namespace n on n.nspname = wanted.schema
join pg_class c on c.relnamespace = n.oid and c.relname = wanted."table"
where c.relfilenode is distinct from pg_relation_filenode(c.oid)
order by 1;

-- name: server_encoding_only
-- The server converts nothing from here on.
set client_encoding = 'SQL_ASCII';

-- name: copy
-- template: columns, table
copy (select {columns} from only {table}) to stdout;
