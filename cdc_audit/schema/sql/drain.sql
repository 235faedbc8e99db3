-- name: settings
-- All of it belongs to audit_owner.
set local role audit_owner

-- name: patience
-- A busy trail is not waited for: whoever waits for its lock stops all who come after.
select pg_catalog.set_config('lock_timeout', '3s', true), pg_catalog.set_config('statement_timeout', '0', true)

-- name: months
-- The months that could have a partition of their own, with their rows in the default one.
select pg_catalog.to_char(created_at at time zone 'UTC', 'YYYY-MM-01'), count(*)
  from {schema}.audit_logs_default
 where created_at >= '2000-01-01 00:00:00+00' and created_at < pg_catalog.now() + interval '730 days'
 group by 1
 order by 1

-- name: put_aside
-- Rows can't be deleted, so the partition goes, and its rows come back through the root. Whoever reads or writes the trail waits.
alter table {schema}.audit_logs detach partition {schema}.audit_logs_default

-- name: rename
alter table {schema}.audit_logs_default rename to audit_logs_draining

-- name: make
create table {schema}.audit_logs_default (like {schema}.audit_logs)
    with (autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000)

-- name: attach
alter table {schema}.audit_logs attach partition {schema}.audit_logs_default default

-- name: protect
select {schema}.protect('audit_logs_default')

-- name: ensure_partition
select {schema}.ensure_partition(%s::date)

-- name: move
insert into {schema}.audit_logs select * from {schema}.audit_logs_draining order by id, created_at

-- name: same
-- Whether each row is where it belongs, the same as it was.
select not exists (select from {schema}.audit_logs_draining as old
                    where not exists (select from {schema}.audit_logs as new
                                       where new.id = old.id and new.created_at = old.created_at and new.row_hash = old.row_hash))

-- name: drop
drop table {schema}.audit_logs_draining
