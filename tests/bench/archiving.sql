-- name: sizes
-- Bytes of all partitions: rows, what is out of line, and indexes.
select sum(pg_catalog.pg_table_size(relid)), sum(pg_catalog.pg_indexes_size(relid))
  from pg_catalog.pg_partition_tree('audit.audit_logs')
 where isleaf

-- name: months
-- Partitions of months that are due.
select count(*) from pg_catalog.pg_class where relname ~ '^audit_logs_202[345]_..$' and relkind = 'r' and relnamespace = 'audit'::regnamespace

-- name: balance
-- Rows that are here, rows that retention blocks say are elsewhere, and rows of which the ledger knows: of one moment.
select (select count(*) from audit.audit_logs),
       (select coalesce(sum((detail ->> 'rows')::bigint), 0)::bigint from audit.ledger where kind = 'retention'),
       (select first_id + row_count - 1 from audit.ledger order by block desc limit 1)

-- name: rows
select id, row_hash from audit.audit_logs where id <= %s order by id
