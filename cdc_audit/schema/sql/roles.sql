-- name: lock
-- One migration at a time in this database.
select pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('cdc-audit schema migrate', 0))

-- name: create_roles
-- Roles belong to the whole cluster: another database may have made them, or may be making them right now.
do $$
declare
    wanted record;
begin
    for wanted in
        select * from (values ('audit_owner', 'nologin'), ('audit_writer', 'login'), ('audit_admin', 'nologin')) as r (name, login)
    loop
        if not exists (select from pg_catalog.pg_roles where rolname = wanted.name) then
            begin
                execute pg_catalog.format('create role %I %s', wanted.name, wanted.login);
            exception
                when duplicate_object or unique_violation then null;
            end;
        end if;
    end loop;
end
$$

-- name: unsafe_roles
-- Which of the roles could change the trail.
select rolname::text
  from pg_catalog.pg_roles
 where rolname in ('audit_owner', 'audit_writer', 'audit_admin')
   and (rolsuper or (rolname <> 'audit_owner' and pg_catalog.pg_has_role(oid, 'audit_owner', 'MEMBER')))
 order by 1

-- name: join_owner
-- To make what audit_owner shall own, one must be able to become it. From PostgreSQL 16 on, who made a role may only administer it.
do $$
begin
    if not pg_catalog.pg_has_role(current_user, 'audit_owner',
            case when pg_catalog.current_setting('server_version_num')::int >= 160000 then 'SET' else 'MEMBER' end) then
        execute pg_catalog.format('grant audit_owner to %I', current_user);
    end if;
exception
    when unique_violation then null;  -- another database was faster
end
$$

-- name: is_in_need_of_membership
-- Whether a login must be made a member of audit_writer; null if there is no such role.
select not r.rolsuper and r.rolname <> 'audit_writer' and not exists (
           select from pg_catalog.pg_auth_members as m
            where m.member = r.oid and m.roleid = (select oid from pg_catalog.pg_roles where rolname = 'audit_writer'))
  from pg_catalog.pg_roles as r
 where r.rolname = %s

-- name: grant_writer
grant audit_writer to {login}

-- name: become_owner
set local role audit_owner

-- name: become_self
reset role
