-- What the demo asks the audit database, to show the trail and to check what it claims about it.

-- name: arrived
select count(*), coalesce(max(id), 0) from audit.audit_logs

-- name: newest
select id, to_char(created_at at time zone 'UTC', 'HH24:MI:SS.MS'), action, table_name, coalesce(record_id, ''),
    coalesce(user_id, ''), context_trust, coalesce(array_to_string(changed_fields, ', '), '')
from audit.audit_logs where id > %s order by id

-- name: tally
select table_name, action, coalesce(user_id, ''), context_trust, count(*) from audit.audit_logs group by 1, 2, 3, 4

-- name: positions
select min(id), max(id), count(distinct id), count(distinct (commit_lsn, seq)) from audit.audit_logs

-- name: origin
select distinct db_user, application_name, host(ip_address), context ->> 'request_id'
from audit.audit_logs where user_id = %s and table_name = 'orders'

-- name: dba_change
select old_data ->> 'amount', new_data ->> 'amount', changed_fields, context_trust, user_id
from audit.audit_logs where table_name = 'payments' and action = 'UPDATE' and record_id = %s

-- name: secrets
select count(*) from audit.audit_logs where old_data::text like '%%bcrypt%%' or new_data::text like '%%bcrypt%%'

-- name: mentions
select count(*) from audit.audit_logs where old_data::text like %s or new_data::text like %s

-- name: forge
update audit.audit_logs set user_id = 'somebody else' where id = 1

-- name: switch_off
do $$
declare
    part regclass;
begin
    for part in select relid from pg_partition_tree('audit.audit_logs') loop
        execute format('alter table %s disable trigger user', part);
    end loop;
end
$$

-- name: cover_up
update audit.audit_logs set new_data = jsonb_set(new_data, '{amount}', '1299.00')
where table_name = 'payments' and action = 'UPDATE' and record_id = %s
returning id

-- name: ledger_end
select end_lsn::text from audit.ledger order by block desc limit 1

-- name: slot_position
select confirmed_flush_lsn::text, active from pg_replication_slots where slot_name = %s
