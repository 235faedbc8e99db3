-- Readings of the trail, by those who let cdc-audit record them ([audit] record_reads). Run as audit_owner.

create table {schema}.reads (
    id               bigint      generated always as identity primary key,
    read_at          timestamptz not null default clock_timestamp(),
    db_user          text        not null,
    client_address   inet,
    application_name text,
    command          text        not null,
    filters          jsonb       not null,
    row_count        bigint
);

comment on table {schema}.reads is
    'One row for each reading of the trail by a command of cdc-audit whose configuration says record_reads. Can only be added to.';

-- Who reads and when is what the server knows; the command, what was asked for and the number of rows (null: they are shown as they
-- come) is what the reader's program says. Nobody has another way to add a row.
create function {schema}.record_read(command text, filters jsonb, row_count bigint) returns bigint
language sql security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into {schema}.reads (db_user, client_address, application_name, command, filters, row_count)
    values (session_user, inet_client_addr(), current_setting('application_name'), command, filters, row_count)
    returning id
$$;

select {schema}.protect('reads');

revoke all on function {schema}.record_read(text, jsonb, bigint) from public;
grant execute on function {schema}.record_read(text, jsonb, bigint) to audit_admin;
