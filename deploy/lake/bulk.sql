-- More than 100 changes by one user, of one action and table, within an hour: what cdc-audit suspicious finds without any rule.
-- Runs as it is in PostgreSQL, DuckDB and Spark.
with matching as (
    select coalesce(user_id, case when user_email not like 'personal:%' then user_email end) as who, action, schema_name, table_name,
           date_trunc('second', created_at) as moment, id
      from audit_logs
     where action not in ('SNAPSHOT', 'CONTEXT')
), counted as (
    select matching.*, count(*) over (partition by who, action, schema_name, table_name order by moment
                                      range between interval '1' hour preceding and current row) as in_hour
      from matching
), marked as (
    select counted.*, case when moment > lag(moment) over (partition by who, action, schema_name, table_name order by moment, id)
                                         + interval '1' hour then 1 else 0 end as begins
      from counted
     where in_hour > 100
), runs as (
    select marked.*, sum(begins) over (partition by who, action, schema_name, table_name order by moment, id) as run
      from marked
)
select who, action, schema_name, table_name, max(in_hour) as most, min(moment) as first_at, max(moment) as last_at, max(id) as last_id
  from runs
 group by who, action, schema_name, table_name, run
 order by last_id
