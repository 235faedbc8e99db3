-- A table for ``cdc-audit context check``, there for as long as that takes.

-- name: create
-- template: role
create schema cdc_audit_check;
create table cdc_audit_check.change (id integer primary key);
grant usage on schema cdc_audit_check to {role};
grant insert on cdc_audit_check.change to {role};

-- name: drop
drop schema if exists cdc_audit_check cascade;

-- name: say
select cdc_audit.set_context(%(context)s::text);

-- name: change
insert into cdc_audit_check.change values (1);

-- name: xid
select pg_current_xact_id()::xid::text::bigint;
