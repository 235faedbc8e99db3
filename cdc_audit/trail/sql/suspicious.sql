-- name: runs
-- Runs of rows, of what a rule keeps apart, in which more than the limit lie within the window that ends with one of them; to the
-- second, as the daemon counts them (pipeline/suspicion.py).
with matching as (
    select case when %(by_user)s then {who} end as who,
           case when %(by_table)s then schema_name end as schema_name,
           case when %(by_table)s then table_name end as table_name,
           case when %(by_action)s then action end as action,
           pg_catalog.date_trunc('second', created_at) as at, id
      from {schema}.audit_logs
     where {conditions}
       and {rule}
), counted as (
    select *, count(*) over (partition by who, action, schema_name, table_name
                             order by at range between %(window)s::interval preceding and current row) as within
      from matching
), marked as (
    select *, (at - pg_catalog.lag(at) over run > %(window)s::interval)::int as begins
      from counted
     where within > %(limit)s
    window run as (partition by who, action, schema_name, table_name order by at, id)
), runs as (
    select *, sum(coalesce(begins, 0)) over (partition by who, action, schema_name, table_name order by at, id) as number
      from marked
)
select who, null, action, schema_name, table_name, max(within), pg_catalog.to_char(min(at) at time zone 'UTC', {iso}),
       pg_catalog.to_char(max(at) at time zone 'UTC', {iso}), max(id)
  from runs
 group by who, action, schema_name, table_name, number
 order by max(at) desc, 6 desc, 1

-- name: addresses
-- A user's rows from an address that he did not have within the window, although he was seen.
with matching as (
    select {who} as who, pg_catalog.abbrev(ip_address) as address, pg_catalog.date_trunc('second', created_at) as at, id
      from {schema}.audit_logs
     where {conditions}
       and {rule}
), seen as (
    select who, address, at, id, pg_catalog.lag(at) over (partition by who order by id) as last,
           pg_catalog.lag(at) over (partition by who, address order by id) as last_here
      from matching
)
select who, address, null, null, null, 1, pg_catalog.to_char(at at time zone 'UTC', {iso}),
       pg_catalog.to_char(at at time zone 'UTC', {iso}), id
  from seen
 where last >= at - %(window)s::interval and (last_here is null or last_here < at - %(window)s::interval)
   and at >= %(from)s
 order by at desc, id desc

-- name: who
-- The id, or else the e-mail address, unless that is a personal value: its commitments differ from row to row.
coalesce(user_id, case when user_email !~ '^personal:[0-9a-f]{{64}}$' then user_email end)

-- name: every
-- What somebody did; not a copy of the present rows, nor a context that came late.
(schema_name like %(schema_like)s and table_name like %(table_like)s and action not in ('SNAPSHOT', 'CONTEXT')
 and ({who} <> all (%(ignored)s::text[]) is not false))

-- name: bulk
{every}

-- name: deletions
{every} and action in ('DELETE', 'TRUNCATE')

-- name: reads
{every} and action in ('SELECT', 'READ')

-- name: no_context
{every} and context_trust = 'none' and action <> 'DDL'

-- name: ddl
{every} and action = 'DDL'

-- name: new_address
{every} and {who} is not null and ip_address is not null

-- name: outside_hours
{every} and {who} is not null
   and not (pg_catalog.to_char(created_at at time zone %(zone)s, 'dy') = any (%(days)s::text[])
            and pg_catalog.to_char(created_at at time zone %(zone)s, 'HH24:MI') >= %(begin)s
            and pg_catalog.to_char(created_at at time zone %(zone)s, 'HH24:MI') < %(end)s)

-- name: iso
'YYYY-MM-DD"T"HH24:MI:SS"Z"'
