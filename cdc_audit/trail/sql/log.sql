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
   from {place}
  where {conditions}
  order by {order}
  limit %(limit)s) as stored

-- name: stored
{schema}.audit_logs

-- name: archived
-- Rows that came from elsewhere, under the name that conditions know.
pg_catalog.jsonb_populate_recordset(null::{schema}.audit_logs, %(archived)s::jsonb) as audit_logs

-- name: time_of_newest
-- When the newest so many rows of a time began.
select created_at from {schema}.audit_logs where {conditions} order by created_at desc offset %(newest)s - 1 limit 1

-- name: partitions
-- Their bounds, whether they have the look-up indexes of a month that is over, and their names.
select pg_catalog.substring(b.bound, 'FROM \(''([^'']+)''\)')::timestamptz, pg_catalog.substring(b.bound, 'TO \(''([^'']+)''\)')::timestamptz,
       pg_catalog.to_regclass(pg_catalog.format('%%I.%%I', %(schema)s::text, c.relname || '_images')) is not null,
       c.relname::text
  from pg_catalog.pg_inherits as i
  join pg_catalog.pg_class as c on c.oid = i.inhrelid
 cross join lateral (select pg_catalog.pg_get_expr(c.relpartbound, c.oid)) as b (bound)
 where i.inhparent = pg_catalog.format('%%I.audit_logs', %(schema)s::text)::regclass

-- name: one_way
-- Rows in the order of time; those that indexes name; or, where none would, all.
select pg_catalog.set_config('enable_' || method, case when %(way)s = method then 'on' else 'off' end, true)
  from pg_catalog.unnest(array['indexscan', 'bitmapscan', 'seqscan']) as method

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

-- name: are_any_personal
-- Without any, there is nothing to look for beside the rows.
select exists (select from {schema}.personal_values)

-- name: all
true

-- name: schema_name
schema_name = %(schema_name)s

-- name: table_name
-- This and what follows like it: first as the index "terms" of months that are over has it, then as it is meant.
(array[pg_catalog."left"(table_name, 64)] @> array[pg_catalog."left"(%(table_name)s, 64)] and table_name = %(table_name)s)

-- name: record
record_id = %(record)s

-- name: user
(user_id = %(user)s or (array[pg_catalog."left"(user_email, 64)] @> array[pg_catalog."left"(%(user)s, 64)] and user_email = %(user)s))

-- name: action
-- As it is said, or in capitals.
(array[pg_catalog."left"(action, 64)] && array[pg_catalog."left"(%(action)s, 64), pg_catalog."left"(pg_catalog.upper(%(action)s), 64)]
    and action in (%(action)s, pg_catalog.upper(%(action)s)))

-- name: field
changed_fields @> array[%(field)s::text]

-- name: since
created_at >= %(since)s

-- name: until
created_at < %(until)s

-- name: xid
xid = %(xid)s

-- name: email
(array[pg_catalog."left"(user_email, 64)] @> array[pg_catalog."left"(%(email)s, 64)] and user_email = %(email)s)

-- name: email_opened
-- A personal address stands in personal_values, and only there.
((array[pg_catalog."left"(user_email, 64)] @> array[pg_catalog."left"(%(email)s, 64)] and user_email = %(email)s)
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = 'context' and p.field = 'user_email'
                  and p.value::jsonb #>> '{{}}' = %(email)s))

-- name: ip
ip_address <<= %(ip)s::inet

-- name: address
ip_address = %(ip)s::inet

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
(array[pg_catalog."left"(application_name, 64)] @> array[pg_catalog."left"(%(application)s, 64)] and application_name = %(application)s)

-- name: trust
(array[context_trust] @> array[%(trust)s::text] and context_trust = %(trust)s)

-- name: text
(pg_catalog.strpos(pg_catalog.lower(context::text collate {folding}), pg_catalog.lower(%(text)s)) > 0
    or pg_catalog.strpos(pg_catalog.lower(user_agent collate {folding}), pg_catalog.lower(%(text)s)) > 0)

-- name: text_opened
(pg_catalog.strpos(pg_catalog.lower(context::text collate {folding}), pg_catalog.lower(%(text)s)) > 0
    or pg_catalog.strpos(pg_catalog.lower(user_agent collate {folding}), pg_catalog.lower(%(text)s)) > 0
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = 'context'
                  and pg_catalog.strpos(pg_catalog.lower(p.value collate {folding}), pg_catalog.lower(%(text)s)) > 0))

-- name: value
-- As it is meant, and as the index "images" has it, where a text could also be that of a number.
({part} ->> {field}::text = {value} and ({part} @> {as_text}::jsonb or {part} @> {as_is}::jsonb))

-- name: value_opened
(({part} ->> {field}::text = {value} and ({part} @> {as_text}::jsonb or {part} @> {as_is}::jsonb))
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = {part_name} and p.field = {field} and p.value::jsonb #>> '{{}}' = {value}))

-- name: nested_value
-- An object's or array's text.
{part} ->> {field}::text = {value}

-- name: nested_value_opened
({part} ->> {field}::text = {value}
    or exists (select from {schema}.personal_values as p
                where p.id = audit_logs.id and p.part = {part_name} and p.field = {field} and p.value::jsonb #>> '{{}}' = {value}))

-- name: removals
(array[pg_catalog."left"(action, 64)] && array['DELETE', 'TRUNCATE'] and action in ('DELETE', 'TRUNCATE'))

-- name: id
id = %(id)s

-- name: above_id
id > %(above_id)s

-- name: up_to_id
id <= %(up_to_id)s

-- name: range
(id >= {first} and id < {end})

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
select pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('enable_indexscan', 'on', true),
       pg_catalog.set_config('enable_bitmapscan', 'on', true), pg_catalog.set_config('cursor_tuple_fraction', '1', true)
