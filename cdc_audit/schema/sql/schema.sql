-- name: schema_state
-- Whether the schema is there, whether it has our tables, and how many relations it has.
select n.oid is not null as there,
       exists (select from pg_catalog.pg_class where relnamespace = n.oid and relname = 'schema_version') as ours,
       (select count(*) from pg_catalog.pg_class where relnamespace = n.oid) as relations
  from (select pg_catalog.to_regnamespace(pg_catalog.quote_ident(%s)) as oid) as n

-- name: create_schema
create schema {schema} authorization audit_owner

-- name: take_schema
alter schema {schema} owner to audit_owner

-- name: installed_version
select max(version) from {schema}.schema_version

-- name: record
insert into {schema}.schema_version (version, name) values (%s, %s)

-- name: protect_all
-- The tables that only ever grow, the root before its partitions.
select {schema}.protect(grown.relname::text)
  from (select relname
          from pg_catalog.pg_class as c
         where relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident({schema_name}))
           and (relname in ('audit_logs', 'ledger', 'personal_values', 'reads')
                or oid in (select relid
                             from pg_catalog.pg_partition_tree(pg_catalog.format('%I.audit_logs', {schema_name}::text)::regclass)))
         order by relkind <> 'p', relname) as grown

-- name: ensure_ahead
-- The months, from this one on, that have no partition of their own although each was asked for.
select pg_catalog.to_char(month, 'YYYY-MM')
  from pg_catalog.generate_series(pg_catalog.date_trunc('month', pg_catalog.now() at time zone 'UTC'),
                                  pg_catalog.date_trunc('month', pg_catalog.now() at time zone 'UTC')
                                      + pg_catalog.make_interval(months => %s),
                                  interval '1 month') as month
 where not {schema}.ensure_partition(month::date)

-- name: partitions
-- Each partition by its lower bound, the default one last. Before the first ANALYZE the rows are those that were counted since.
select c.relname::text as name,
       pg_catalog.substring(b.bound, 'FROM \(''([^'']+)''\)')::timestamptz as lower,
       pg_catalog.substring(b.bound, 'TO \(''([^'']+)''\)')::timestamptz as upper,
       case when c.reltuples >= 0 then c.reltuples::bigint else pg_catalog.pg_stat_get_live_tuples(c.oid) end as rows,
       pg_catalog.pg_total_relation_size(c.oid) as bytes
  from pg_catalog.pg_inherits as i
  join pg_catalog.pg_class as c on c.oid = i.inhrelid
  join pg_catalog.pg_class as root on root.oid = i.inhparent
 cross join lateral (select pg_catalog.pg_get_expr(c.relpartbound, c.oid)) as b (bound)
 where root.relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(%s))
   and root.relname = 'audit_logs'
 order by lower nulls last, name

-- name: missing_indexes
select index::text from {schema}.missing_indexes()

-- name: build_index
select {schema}.build_index()::text

-- name: digest_rows
select {schema}.digest_rows()

-- name: unhurried
select pg_catalog.set_config('statement_timeout', '0', false)
