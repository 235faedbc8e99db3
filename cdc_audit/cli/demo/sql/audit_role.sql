-- The daemon's role in the audit database; `cdc-audit init` lets it add to the trail, and nothing else.
create role cdc_audit_writer login;
