-- name: survey
-- What is where, for a role that may read the ledger and no row: rows in the audit database are estimated.
with leaf as materialized (
    select pg_catalog.substring(b.bound, 'FROM \(''([^'']+)''\)')::timestamptz as lower,
           pg_catalog.substring(b.bound, 'TO \(''([^'']+)''\)')::timestamptz as upper,
           case when c.reltuples >= 0 then c.reltuples::bigint else pg_catalog.pg_stat_get_live_tuples(c.oid) end as rows,
           pg_catalog.pg_total_relation_size(c.oid) as bytes
      from pg_catalog.pg_inherits as i
      join pg_catalog.pg_class as c on c.oid = i.inhrelid
     cross join lateral (select pg_catalog.pg_get_expr(c.relpartbound, c.oid)) as b (bound)
     where i.inhparent = pg_catalog.to_regclass(pg_catalog.format('%%I.audit_logs', %(schema)s::text))
), said as materialized (
    select block, kind, written_at, detail
      from {schema}.ledger
     where kind in ('hold', 'release', 'retention', 'purge')
), archive as materialized (
    select written_at, (detail ->> 'rows')::bigint as rows, (detail ->> 'bytes')::bigint as bytes,
           exists (select from said as p where p.kind = 'purge' and p.detail -> 'manifest' = r.detail -> 'manifest') as is_purged
      from said as r
     where kind = 'retention' and detail -> 'manifest' ->> 'name' <> ''
)
select coalesce((select sum(rows) from leaf), 0)::bigint as hot_rows,
       coalesce((select sum(bytes) from leaf), 0)::bigint as hot_bytes,
       coalesce((select sum(rows) from leaf where lower is null), 0)::bigint as default_rows,
       coalesce((select extract(epoch from min(lower)) from leaf where rows > 0), 0)::float8 as oldest_hot_month,
       (select count(*) from leaf
         where rows > 0 and upper + pg_catalog.make_interval(months => %(hot)s) <= pg_catalog.now()) as due_months,
       coalesce((select sum(rows) from archive where not is_purged), 0)::bigint as archive_rows,
       coalesce((select sum(bytes) from archive where not is_purged), 0)::bigint as archive_bytes,
       coalesce((select extract(epoch from max(written_at)) from archive), 0)::float8 as last_archive,
       (select count(*) filter (where kind = 'hold') - count(*) filter (where kind = 'release') from said) as holds
