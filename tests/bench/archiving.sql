-- name: size
select sum(pg_catalog.pg_total_relation_size(relid)) from pg_catalog.pg_partition_tree('audit.audit_logs') where isleaf

-- name: months
-- Months before those that are written now.
select count(*) from pg_catalog.pg_class where relname ~ '^audit_logs_202[345]_..$' and relkind = 'r'

-- name: count
select count(*) from audit.audit_logs

-- name: rows
select id, row_hash from audit.audit_logs order by id
