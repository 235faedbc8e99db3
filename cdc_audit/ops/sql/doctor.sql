-- What doctor looks up besides the facts that the other rooms read. Catalog and settings only, never a row of anybody's.

-- name: server
select pg_catalog.current_setting('server_version_num')::int as version_num,
       pg_catalog.current_setting('server_version') as version,
       pg_catalog.current_database()::text as database,
       pg_catalog.pg_is_in_recovery() as in_recovery,
       pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute') as may_identify

-- name: system_identifier
-- Only where "server" says that it may be called.
select system_identifier::text as value from pg_catalog.pg_control_system()

-- name: settings
-- Named settings that exist on this server, in their base unit.
select name, setting, unit
  from pg_catalog.pg_settings
 where name = any(%(names)s::text[])

-- name: clock
select extract(epoch from pg_catalog.clock_timestamp())::float8 as seconds

-- name: wal_senders
select (select count(*) from pg_catalog.pg_stat_replication)::int as used,
       pg_catalog.current_setting('max_wal_senders')::int as allowed

-- name: replicates_by_membership
-- Amazon RDS has no REPLICATION attribute to give, but a role that stands for it.
select exists (select 1
                 from pg_catalog.pg_roles as r
                where r.rolname = 'rds_replication' and pg_catalog.pg_has_role(r.oid, 'MEMBER')) as value

-- name: context_key
-- Whether the signing keys are there, and whether this role may read them.
select pg_catalog.has_table_privilege(c.oid, 'SELECT')
       and pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') as may_read
  from pg_catalog.pg_class as c
 where c.oid = pg_catalog.to_regclass('cdc_audit.context_key')

-- name: tables_to_guard
-- The relations of the audit schema that only ever grow: the ledger, the root of the rows and its leaves.
-- The event bits of a trigger are 8 (delete), 16 (update) and 32 (truncate); 'A' is enabled always.
select c.relname::text as name,
       coalesce(pg_catalog.bit_or(t.tgtype::int) filter (where t.tgenabled = 'A'), 0) & 56 as guarded
  from pg_catalog.pg_class as c
  left join pg_catalog.pg_trigger as t on t.tgrelid = c.oid and (not t.tgisinternal or t.tgparentid <> 0)
 where c.relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(%(schema)s))
   and (c.relname in ('audit_logs', 'ledger')
        or exists (select 1
                     from pg_catalog.pg_inherits as i
                     join pg_catalog.pg_class as root on root.oid = i.inhparent
                    where i.inhrelid = c.oid and root.relname = 'audit_logs' and root.relnamespace = c.relnamespace))
 group by c.relname
 order by c.relname

-- name: writer_rights
-- What the connected role may do with each relation of the trail beyond adding to it, and whether it could take more.
select r.rolsuper as is_superuser,
       r.rolname::text as role,
       array(select c.relname || ': ' || right_name
               from pg_catalog.pg_class as c
              cross join unnest(array['SELECT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) as right_name
              where c.oid in (select relid from pg_catalog.pg_partition_tree(root.oid))
                and (pg_catalog.has_table_privilege(r.oid, c.oid, right_name)
                     or (right_name in ('SELECT', 'UPDATE')
                         and pg_catalog.has_any_column_privilege(r.oid, c.oid, right_name)))
              order by 1)
       || array(select 'ledger: ' || right_name
                  from unnest(array['UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) as right_name
                 where pg_catalog.has_table_privilege(r.oid, ledger.oid, right_name)) as too_much,
       array(select wanted
               from (values ('audit_logs: INSERT', pg_catalog.has_table_privilege(r.oid, root.oid, 'INSERT')),
                            ('ledger: INSERT', pg_catalog.has_table_privilege(r.oid, ledger.oid, 'INSERT')),
                            ('ledger: SELECT', pg_catalog.has_table_privilege(r.oid, ledger.oid, 'SELECT')))
                    as rights (wanted, granted)
              where not granted) as missing,
       pg_catalog.pg_has_role(r.oid, root.relowner, 'MEMBER') as is_owner,
       pg_catalog.pg_get_userbyid(root.relowner)::text as owner
  from pg_catalog.pg_roles as r
 cross join pg_catalog.pg_class as root
 cross join pg_catalog.pg_class as ledger
 where r.rolname = current_user
   and root.relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(%(schema)s))
   and root.relname = 'audit_logs'
   and ledger.relnamespace = root.relnamespace
   and ledger.relname = 'ledger'
