-- One record's changes, oldest first, under one key. Runs as it is in PostgreSQL, DuckDB and Spark.
select id, created_at, action, old_data, new_data, user_id, user_email, context_trust, xid, commit_lsn, seq
  from audit_logs
 where schema_name = 'public' and table_name = 'orders' and record_id = '42'
 order by id
