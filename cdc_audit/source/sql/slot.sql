-- The replication slot. pg_replication_slots has other columns in each version, so they are read through jsonb.

-- name: status
-- A standby has no insert position: what it has received stands for it.
with here as (
    select case
        when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
        else pg_current_wal_lsn()
    end as lsn
)
select
    s.slot_name::text as name,
    s.plugin::text as plugin,
    s.database::text as database,
    s.active,
    s.active_pid,
    (s.confirmed_flush_lsn - '0/0')::bigint as confirmed_flush_lsn,
    (s.restart_lsn - '0/0')::bigint as restart_lsn,
    greatest(here.lsn - s.confirmed_flush_lsn, 0)::bigint as lag_bytes,
    greatest(here.lsn - s.restart_lsn, 0)::bigint as retained_bytes,
    s.wal_status,
    s.safe_wal_size as safe_wal_bytes,
    age(s.catalog_xmin)::bigint as catalog_xmin_age,
    coalesce(s.two_phase, false) as two_phase,
    (later.columns ->> 'failover')::boolean as failover,
    coalesce(
        later.columns ->> 'invalidation_reason',
        case
            when (later.columns ->> 'conflicting')::boolean then 'conflicting'
            when s.wal_status = 'lost' then 'wal_removed'
        end
    ) as invalidation_reason,
    s.database is not distinct from current_database() as is_here
from here, pg_replication_slots s, to_jsonb(s) as later(columns)
where s.slot_name = %(slot)s;

-- name: session
select pg_is_in_recovery(), current_setting('cdc_audit.session', true);

-- name: end_backend
-- A walsender has nothing to lose: what it has sent and nobody confirmed is sent again.
select pg_terminate_backend(pid, 1000) from pg_stat_activity
where pid = %s and backend_start = %s::timestamptz and usename = current_user;

-- name: position
select (case
    when pg_is_in_recovery() then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
    else pg_current_wal_flush_lsn()
end - '0/0')::bigint;

-- name: create
select pg_create_logical_replication_slot(%(slot)s, %(plugin)s);

-- name: create_failover
-- A standby refuses to make such a slot: it does so only where that was asked for.
select pg_create_logical_replication_slot(
    %(slot)s, %(plugin)s, failover => %(is_asked)s or not pg_is_in_recovery()
);

-- name: probe
-- A temporary slot shows whether a real one could be made.
select pg_create_logical_replication_slot(%(slot)s, %(plugin)s, true);

-- name: drop
select pg_drop_replication_slot(%(slot)s);

-- name: advance
select pg_replication_slot_advance(%(slot)s, %(lsn)s::pg_lsn);
