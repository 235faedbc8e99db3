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
-- The relations of the audit schema that only ever grow: the ledger, the root of the rows and its leaves, personal values, and readings.
-- The event bits of a trigger are 8 (delete), 16 (update) and 32 (truncate); 'A' is enabled always.
select c.relname::text as name,
       coalesce(pg_catalog.bit_or(t.tgtype::int) filter (where t.tgenabled = 'A'), 0) & 56 as guarded
  from pg_catalog.pg_class as c
  left join pg_catalog.pg_trigger as t on t.tgrelid = c.oid and (not t.tgisinternal or t.tgparentid <> 0)
 where c.relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(%(schema)s))
   and (c.relname in ('audit_logs', 'ledger', 'personal_values', 'reads')
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
                 where pg_catalog.has_table_privilege(r.oid, ledger.oid, right_name))
       || array(select 'personal_values: ' || right_name
                  from unnest(array['SELECT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER']) as right_name
                 where pg_catalog.has_table_privilege(r.oid, personal.oid, right_name)) as too_much,
       array(select wanted
               from (values ('audit_logs: INSERT', pg_catalog.has_table_privilege(r.oid, root.oid, 'INSERT')),
                            ('personal_values: INSERT', pg_catalog.has_table_privilege(r.oid, personal.oid, 'INSERT')),
                            ('ledger: INSERT', pg_catalog.has_table_privilege(r.oid, ledger.oid, 'INSERT')),
                            ('ledger: SELECT', pg_catalog.has_table_privilege(r.oid, ledger.oid, 'SELECT')))
                    as rights (wanted, granted)
              where not granted) as missing,
       array(select granted.rolname::text
               from pg_catalog.pg_roles as granted
              where granted.rolname in ('pg_read_all_data', 'pg_write_all_data')
                and pg_catalog.pg_has_role(r.oid, granted.oid, 'MEMBER')) as too_broad,
       pg_catalog.pg_has_role(r.oid, root.relowner, 'MEMBER') as is_owner,
       pg_catalog.pg_get_userbyid(root.relowner)::text as owner
  from pg_catalog.pg_roles as r
 cross join pg_catalog.pg_class as root
 cross join pg_catalog.pg_class as ledger
  left join pg_catalog.pg_class as personal on personal.relnamespace = ledger.relnamespace and personal.relname = 'personal_values'
 where r.rolname = current_user
   and root.relnamespace = pg_catalog.to_regnamespace(pg_catalog.quote_ident(%(schema)s))
   and root.relname = 'audit_logs'
   and ledger.relnamespace = root.relnamespace
   and ledger.relname = 'ledger'

-- name: objects
-- The audit schema and what is in it, named as GRANT takes it. Indexes and types have no rights of their own worth a look.
select 'schema' as kind, n.nspname::text as name, pg_catalog.format('%%I', n.nspname) as object, false as is_partition
  from pg_catalog.pg_namespace as n
 where n.nspname = %(schema)s
 union all
select 'table', c.relname::text, pg_catalog.format('%%I.%%I', n.nspname, c.relname), c.relispartition
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
 where n.nspname = %(schema)s and c.relkind in ('r', 'p', 'v', 'm', 'f')
 union all
select 'function', p.proname::text, p.oid::regprocedure::text, false
  from pg_catalog.pg_proc as p
  join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
 where n.nspname = %(schema)s

-- name: grants
-- Every right in the audit schema that isn't its owner's, and of the owner's those that the migrations take away.
select distinct found.kind, found.object, found.right_name, coalesce(r.rolname::text, 'public') as role
  from (
    select 'schema' as kind, pg_catalog.format('%%I', n.nspname) as object, a.privilege_type as right_name, a.grantee
      from pg_catalog.pg_namespace as n, pg_catalog.aclexplode(n.nspacl) as a
     where n.nspname = %(schema)s and a.grantee <> n.nspowner
     union all
    select 'table', pg_catalog.format('%%I.%%I', n.nspname, c.relname), a.privilege_type, a.grantee
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace,
           pg_catalog.aclexplode(coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) as a
     where n.nspname = %(schema)s and c.relkind in ('r', 'p', 'v', 'm', 'f')
       and (a.grantee <> c.relowner
            or (c.relname <> 'schema_version' and a.privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE')))
     union all
    select 'table', pg_catalog.format('%%I.%%I', n.nspname, c.relname), a.privilege_type, a.grantee
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
      join pg_catalog.pg_attribute as t on t.attrelid = c.oid, pg_catalog.aclexplode(t.attacl) as a
     where n.nspname = %(schema)s and a.grantee <> c.relowner
     union all
    select 'function', p.oid::regprocedure::text, a.privilege_type, a.grantee
      from pg_catalog.pg_proc as p
      join pg_catalog.pg_namespace as n on n.oid = p.pronamespace,
           pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as a
     where n.nspname = %(schema)s and a.grantee <> p.proowner
  ) as found
  left join pg_catalog.pg_roles as r on r.oid = found.grantee

-- name: foreign_owners
-- What in the audit schema, itself included, doesn't belong to audit_owner.
select owned.kind, owned.object, pg_catalog.pg_get_userbyid(owned.owner)::text as owner
  from (
    select 'schema' as kind, pg_catalog.format('%%I', nspname) as object, nspowner as owner
      from pg_catalog.pg_namespace
     where nspname = %(schema)s
     union all
    select 'table', pg_catalog.format('%%I.%%I', n.nspname, c.relname), c.relowner
      from pg_catalog.pg_class as c
      join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
     where n.nspname = %(schema)s and c.relkind in ('r', 'p')
     union all
    select 'function', p.oid::regprocedure::text, p.proowner
      from pg_catalog.pg_proc as p
      join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
     where n.nspname = %(schema)s
  ) as owned
 where pg_catalog.pg_get_userbyid(owned.owner) <> 'audit_owner'
 order by owned.kind, owned.object

-- name: powerful_roles
-- What the roles of the trail could change it with, and the statement that takes it from them.
select r.rolname::text as role, power.name as power,
       pg_catalog.format('alter role %%I no%%s;', r.rolname, power.name) as remedy
  from pg_catalog.pg_roles as r
 cross join lateral (values ('superuser', r.rolsuper), ('createrole', r.rolcreaterole), ('createdb', r.rolcreatedb),
                            ('replication', r.rolreplication), ('bypassrls', r.rolbypassrls)) as power (name, has)
 where r.rolname in ('audit_owner', 'audit_writer', 'audit_admin') and power.has
 union all
select r.rolname::text, 'login', pg_catalog.format('alter role %%I nologin;', r.rolname)
  from pg_catalog.pg_roles as r
 where r.rolname in ('audit_owner', 'audit_admin') and r.rolcanlogin
 union all
select r.rolname::text, 'is a member of ' || granted.rolname,
       pg_catalog.format('revoke %%I from %%I;', granted.rolname, r.rolname)
  from pg_catalog.pg_auth_members as m
  join pg_catalog.pg_roles as r on r.oid = m.member
  join pg_catalog.pg_roles as granted on granted.oid = m.roleid
 where r.rolname in ('audit_owner', 'audit_writer', 'audit_admin')
   and granted.rolname in ('audit_owner', 'pg_write_all_data', 'pg_write_server_files', 'pg_execute_server_program')
 order by 1, 2

-- name: attributes
-- What the connected role may do to the source besides reading its stream.
select array(select power.name
               from (values ('createrole', r.rolcreaterole), ('createdb', r.rolcreatedb), ('bypassrls', r.rolbypassrls))
                    as power (name, has)
              where power.has) as too_much
  from pg_catalog.pg_roles as r
 where r.rolname = current_user

-- name: foreign_partitions
-- Partitions that are foreign tables: their changes are in another server's WAL. By root and leaf.
select rn.nspname::text as root_schema, root.relname::text as root_table, pg_catalog.format('%%I.%%I', n.nspname, c.relname) as leaf
  from pg_catalog.pg_class as c
  join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  join pg_catalog.pg_class as root on root.oid = pg_catalog.pg_partition_root(c.oid)
  join pg_catalog.pg_namespace as rn on rn.oid = root.relnamespace
 where c.relkind = 'f' and c.relispartition
 order by 1, 2, 3

-- name: pinned
-- What counts in this session of the settings that decide how values are printed.
select name, pg_catalog.current_setting(name) as value
  from unnest(%(names)s::text[]) as name
