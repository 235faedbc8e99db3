-- Whoever reads the trail is a member of audit_admin, which `cdc-audit init` has made.
create role auditor login in role audit_admin;
