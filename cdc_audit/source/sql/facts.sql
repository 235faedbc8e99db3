-- What the source server is and what its settings are.

-- name: facts
select
    current_setting('server_version_num')::integer as server_version_num,
    current_setting('server_encoding') as server_encoding,
    current_setting('wal_level') as wal_level,
    pg_is_in_recovery() as in_recovery,
    current_database()::text as database,
    current_user::text as "user",
    r.rolsuper as is_superuser,
    r.rolreplication as has_replication,
    (select setting::integer from pg_settings where name = 'wal_sender_timeout') as wal_sender_timeout_ms,
    current_setting('max_slot_wal_keep_size') as max_slot_wal_keep_size,
    current_setting('max_replication_slots')::integer as max_replication_slots,
    (select count(*)::integer from pg_replication_slots) as used_replication_slots,
    -- no row, rather than an error, for a role that may not see it and for a minor that doesn't have it
    (select setting from pg_settings where name = 'output_plugin_libraries') as output_plugin_libraries
from pg_roles r
where r.rolname = current_user;

-- name: may_read_system_identifier
select has_function_privilege('pg_control_system()', 'execute');

-- name: system_identifier
select system_identifier::text from pg_control_system();
