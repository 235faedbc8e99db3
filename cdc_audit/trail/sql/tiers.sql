-- name: utc
set timezone = 'UTC'

-- name: archived
-- DuckDB: rows of one file that may match, with their values as PostgreSQL reads them.
select id, created_at::varchar, schema_name, table_name, record_id, action, old_data, new_data, changed_fields, user_id, user_email,
       ip_address, user_agent, context, context_trust, db_user, application_name, capture, unchanged_toast, partition_name, xid,
       commit_lsn, seq, '\x' || lower(hex(row_hash))
  from read_parquet($file, hive_partitioning = false)
 where {conditions}
 order by {order}
 limit {limit}

-- name: counted
-- DuckDB: how many rows of one file there are of each kind that a report tells apart, and the first and the last of them.
select action, context_trust, capture, coalesce(user_id, user_email), db_user, schema_name, table_name, count(*),
       min(created_at)::varchar, max(created_at)::varchar, min(id), max(id)
  from read_parquet($file, hive_partitioning = false)
 where {conditions}
 group by 1, 2, 3, 4, 5, 6, 7

-- name: newest_first
created_at desc, id desc

-- name: oldest_first
id

-- name: schema_name
-- From here on conditions of DuckDB, each with the values of the filter of its name.
schema_name = $schema_name

-- name: table_name
table_name = $table_name

-- name: record
record_id = $record

-- name: user
(user_id = $user or user_email = $user)

-- name: action
action in ($action, $capitals)

-- name: field
list_contains(changed_fields, $field)

-- name: since
created_at >= $since

-- name: until
created_at < $until

-- name: xid
xid = $xid

-- name: email
user_email = $email

-- name: application
application_name = $application

-- name: trust
context_trust = $trust

-- name: removals
action in ('DELETE', 'TRUNCATE')

-- name: id
id = $id

-- name: above_id
id > $above_id

-- name: up_to_id
id <= $up_to_id

-- name: commit_lsn
commit_lsn = $commit_lsn

-- name: before_at
created_at <= $before_at

-- name: before_id
(created_at < $before_at or (created_at = $before_at and id < $before_id))

-- name: has_column
contains({part}, ${bound})
