-- name: select
-- Times are spelled out in UTC and jsonb is left as its text, so that no client rounds or reformats them.
select id, pg_catalog.to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), schema_name, table_name, record_id,
       action, old_data::text, new_data::text, changed_fields, user_id, user_email, ip, user_agent, context::text, context_trust,
       db_user, application_name, capture, unchanged_toast, partition_name, xid, commit_lsn::text, seq,
       '\x' || pg_catalog.encode(row_hash, 'hex')
  from {rows}
 order by {order}

-- name: rows
-- As they are stored.
(select *, pg_catalog.abbrev(ip_address) as ip
   from {schema}.audit_logs
  where {conditions}
  order by {order}
  limit %(limit)s) as stored

-- name: opened_rows
-- With personal values, or [erased], in the place of their commitments; one look-up for each row of the page.
(select id, created_at, schema_name, table_name, record_id, action, coalesce(old_data || old_values, old_data) as old_data,
        coalesce(new_data || new_values, new_data) as new_data, changed_fields, user_id,
        case when user_email is null then user_email else coalesce(said ->> 'user_email', user_email) end as user_email,
        coalesce(said ->> 'ip_address', ip) as ip,
        case when user_agent is null then user_agent else coalesce(said ->> 'user_agent', user_agent) end as user_agent,
        case when said is null then context
             else nullif((coalesce(context, '{{}}') || said)
                         - array_remove(array[case when said ? 'ip_address' then 'ip_address' end,
                                              case when said ? 'user_email' and user_email is not null then 'user_email' end,
                                              case when said ? 'user_agent' and user_agent is not null then 'user_agent' end],
                                        null), '{{}}')
        end as context,
        context_trust, db_user, application_name, capture, unchanged_toast, partition_name, xid, commit_lsn, seq, row_hash
   from {rows}
   left join lateral (
       select pg_catalog.jsonb_object_agg(field, shown) filter (where part = 'old_data') as old_values,
              pg_catalog.jsonb_object_agg(field, shown) filter (where part = 'new_data') as new_values,
              pg_catalog.jsonb_object_agg(field, shown) filter (where part = 'context') as said
         from (select part, field, coalesce(value::jsonb, '"[erased]"') as shown
                 from {schema}.personal_values as p
                where p.id = stored.id) as opening
   ) as opened on true) as seen

-- name: may_open
-- Not before version 2 of the schema, and not for a role that was denied it.
select coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass(pg_catalog.format('%%I.personal_values', %(schema)s::text)),
                                               'select'), false)

-- name: all
true

-- name: schema_name
schema_name = %(schema_name)s

-- name: table_name
table_name = %(table_name)s

-- name: record
record_id = %(record)s

-- name: user
(user_id = %(user)s or user_email = %(user)s)

-- name: action
pg_catalog.upper(action) = pg_catalog.upper(%(action)s)

-- name: field
%(field)s = any (changed_fields)

-- name: since
created_at >= %(since)s

-- name: until
created_at < %(until)s

-- name: xid
xid = %(xid)s

-- name: email
user_email = %(email)s

-- name: email_opened
-- A personal address stands in personal_values, and only there.
(user_email = %(email)s
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = 'context' and p.field = 'user_email'
                  and p.value::jsonb #>> '{{}}' = %(email)s))

-- name: ip
ip_address <<= %(ip)s::inet

-- name: ip_opened
-- Of personal addresses those of IPv4 are compared as networks, others as text: what an application said need not be one.
(ip_address <<= %(ip)s::inet
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = 'context' and p.field = 'ip_address'
                  and case when p.value::jsonb #>> '{{}}'
                                ~ '^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])[.]){{3}}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])$'
                           then (p.value::jsonb #>> '{{}}')::inet <<= %(ip)s::inet
                           else p.value::jsonb #>> '{{}}' = pg_catalog.host(%(ip)s::inet)
                      end))

-- name: application
application_name = %(application)s

-- name: trust
context_trust = %(trust)s

-- name: text
pg_catalog.strpos(pg_catalog.lower(pg_catalog.concat_ws(' ', context::text, user_agent)), pg_catalog.lower(%(text)s)) > 0

-- name: text_opened
(pg_catalog.strpos(pg_catalog.lower(pg_catalog.concat_ws(' ', context::text, user_agent)), pg_catalog.lower(%(text)s)) > 0
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = 'context'
                  and pg_catalog.strpos(pg_catalog.lower(p.value), pg_catalog.lower(%(text)s)) > 0))

-- name: value
{part} ->> {field}::text = {value}

-- name: value_opened
({part} ->> {field}::text = {value}
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = {part_name} and p.field = {field} and p.value::jsonb #>> '{{}}' = {value}))

-- name: removals
action in ('DELETE', 'TRUNCATE')

-- name: id
id = %(id)s

-- name: above_id
id > %(above_id)s

-- name: up_to_id
id <= %(up_to_id)s

-- name: commit_lsn
commit_lsn = %(commit_lsn)s::pg_lsn

-- name: before_at
-- For the partitions' sake: a comparison of two columns at once prunes none.
created_at <= %(before_at)s

-- name: before_id
(created_at, id) < (%(before_at)s::timestamptz, %(before_id)s)

-- name: newest_first
created_at desc, id desc

-- name: oldest_first
id

-- name: time_of
select created_at from {schema}.audit_logs where id = %(id)s

-- name: last_id
select first_id + row_count - 1 from {schema}.ledger order by block desc limit 1

-- name: prefer_indexes
-- Of a Bloom index the planner expects little, and would at times rather read everything; and it takes it that only the first rows
-- of a cursor are wanted, although limit says how many.
select pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('cursor_tuple_fraction', '1', true)
