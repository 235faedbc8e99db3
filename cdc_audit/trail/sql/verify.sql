-- name: settings
-- Whatever role, database or DSN say: text as it was hashed, rows by their index, and nothing hidden by a policy.
select pg_catalog.set_config(name, value, false)
  from (values ('search_path', 'pg_catalog'), ('TimeZone', 'UTC'), ('DateStyle', 'ISO'), ('IntervalStyle', 'postgres'),
               ('bytea_output', 'hex'), ('extra_float_digits', '3'), ('client_encoding', 'UTF8'), ('row_security', 'off'),
               ('enable_sort', 'off'), ('enable_incremental_sort', 'off'), ('jit', 'off'), ('statement_timeout', '0'),
               ('lock_timeout', '0'), ('idle_in_transaction_session_timeout', '0')) as pinned (name, value)

-- name: begin
begin isolation level repeatable read read only

-- name: export_snapshot
select pg_catalog.pg_export_snapshot()

-- name: import_snapshot
set transaction snapshot {snapshot}

-- name: headers
copy (select block, kind, first_id, row_count, system_identifier, timeline, slot, start_lsn, end_lsn, last_commit_at,
             written_at, rows_root, prev_hash, detail, key_id, block_hash, signature
        from {schema}.ledger
       where block >= {first} and ({last} is null or block <= {last})
       order by block)
to stdout

-- name: rows
copy (select id, created_at, schema_name, table_name, record_id, action, old_data, new_data, changed_fields, user_id,
             user_email, ip_address, user_agent, context, context_trust, db_user, application_name, capture,
             unchanged_toast, partition_name, xid, commit_lsn, seq, row_hash
        from {schema}.audit_logs
       where {range}
       order by id, created_at)
to stdout

-- name: openings
-- With what stands in the row where the commitment should; an e-mail address or user agent that isn't a text stays in the context.
copy (select p.id, p.part, p.field, p.commitment, p.salt, p.value,
             case p.part
                 when 'old_data' then a.old_data ->> p.field
                 when 'new_data' then a.new_data ->> p.field
                 else coalesce(case p.field when 'user_email' then a.user_email when 'user_agent' then a.user_agent end,
                               a.context ->> p.field)
             end
        from (select * from {schema}.personal_values where {range}) as p
        left join (select * from {schema}.audit_logs where {range}) as a on a.id = p.id
       order by p.id, p.part, p.field)
to stdout

-- name: has_openings
-- Not before version 2 of the schema.
select pg_catalog.to_regclass(pg_catalog.format('%%I.personal_values', %(schema)s::text)) is not null

-- name: count_openings
select count(*) from {schema}.personal_values where {range}

-- name: from_id
id >= {first}

-- name: before_id
id < {end}

-- name: all
true

-- name: scan_only
-- From here to the end of the transaction no index is used: what an index lacks is seen.
select pg_catalog.set_config(name, 'off', true)
  from (values ('enable_indexscan'), ('enable_indexonlyscan'), ('enable_bitmapscan')) as method (name)

-- name: count
select (select count(*) from {schema}.audit_logs where {range}),
       (select count(*) from {schema}.ledger where block >= {first_block})

-- name: last_block
select block from {schema}.ledger order by block desc limit 1

-- name: block_since
select block from {schema}.ledger where written_at >= %s order by block limit 1

-- name: block_of_row
select block
  from (select block, first_id + row_count as next_id
          from {schema}.ledger
         where row_count > 0 and first_id <= %(id)s
         order by first_id desc
         limit 1) as last
 where next_id > %(id)s

-- name: row_hashes
-- In one piece.
select pg_catalog.string_agg(row_hash, '')
  from (select row_hash from {schema}.audit_logs where id >= %(first)s and id < %(end)s order by id, created_at) as block
