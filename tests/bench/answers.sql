-- name: size
-- Rows, the newest one's time, bytes of tables and of indexes, how many records a table has.
select (select max(id) from audit.audit_logs), (select max(created_at) from audit.audit_logs),
       sum(pg_catalog.pg_table_size(relid)), sum(pg_catalog.pg_indexes_size(relid)),
       (select max(record_id::int) + 1 from audit.audit_logs where created_at > (select max(created_at) from audit.audit_logs) - interval '2 days')
  from pg_catalog.pg_partition_tree('audit.audit_logs')
 where isleaf

-- name: record
select * from audit.audit_logs where table_name = %s and record_id = %s order by created_at desc

-- name: user
select * from audit.audit_logs where user_id = %s order by created_at desc limit 50

-- name: deletions
select * from audit.audit_logs where action = 'DELETE' and created_at > %s order by created_at desc
