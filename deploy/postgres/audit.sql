-- The roles of the audit database. As a superuser, in that database: psql -d audit -f audit.sql
-- Set passwords with \password cdc_audit_writer and \password auditor, so that they stand in no file and in no log.
-- `cdc-audit init` gives them what they may: audit_writer INSERT, audit_admin SELECT; nobody UPDATE, DELETE or TRUNCATE.
\set ON_ERROR_STOP on

create role audit_owner nologin;
create role audit_writer nologin;
create role audit_admin nologin;

-- The daemon.
create role cdc_audit_writer login connection limit 10 in role audit_writer;
-- Who reads the trail, and cdc-audit verify. One such role a person is better.
create role auditor login in role audit_admin;

revoke all on database :"DBNAME" from public;
revoke create on schema public from public;
grant connect on database :"DBNAME" to audit_writer, audit_admin;
