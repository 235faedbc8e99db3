-- Months may leave the audit database. Run as audit_owner.

-- What was said of retention is looked up often, among millions of other blocks.
create index ledger_retention on {schema}.ledger (block) where kind in ('hold', 'release', 'retention');
