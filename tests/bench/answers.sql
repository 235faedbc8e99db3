-- name: is_there
select pg_catalog.to_regclass('audit.audit_logs') is not null

-- name: extent
-- Rows, the oldest one's and the newest one's time, how many records a table has.
select (select max(id) from audit.audit_logs), (select min(created_at) from audit.audit_logs),
       (select max(created_at) from audit.audit_logs),
       (select max(record_id::int) + 1 from audit.audit_logs
         where created_at > (select max(created_at) from audit.audit_logs) - interval '2 days')

-- name: sizes
-- Bytes of the table and of each kind of index; a partition's name is cut off theirs.
select 'table' as label, sum(pg_catalog.pg_table_size(relid)), 0 as place
  from pg_catalog.pg_partition_tree('audit.audit_logs')
 where isleaf
union all
select 'index ' || pg_catalog.regexp_replace(pg_catalog.regexp_replace(x.relname, '^audit_logs_([0-9]{4}_[0-9]{2}|default)_', ''),
                                             '^table_name_.*', 'lookup (BRIN)') as label,
       sum(pg_catalog.pg_relation_size(x.oid)), 1
  from pg_catalog.pg_partition_tree('audit.audit_logs') as p
  join pg_catalog.pg_index as i on i.indrelid = p.relid
  join pg_catalog.pg_class as x on x.oid = i.indexrelid
 where p.isleaf
 group by 1
union all
select 'digests', pg_catalog.pg_total_relation_size('audit.digests'), 2
union all
select 'indexes, all', sum(pg_catalog.pg_indexes_size(relid)), 2
  from pg_catalog.pg_partition_tree('audit.audit_logs')
 where isleaf
 order by 3, 2 desc

-- name: record
select * from audit.audit_logs where table_name = %s and record_id = %s order by created_at desc

-- name: user
select * from audit.audit_logs where user_id = %s order by created_at desc

-- name: user_page
select * from audit.audit_logs where user_id = %s order by created_at desc limit 50

-- name: deletions
select * from audit.audit_logs where action = 'DELETE' and created_at > %s order by created_at desc

-- name: many
select user_id, action, count(*)
  from audit.audit_logs
 where created_at > %s
 group by user_id, action
having count(*) > 100
 order by 3 desc
