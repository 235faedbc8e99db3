-- Takes out all that install.sql put in.

-- name: triggers
-- Those of partitions are clones of none: statement triggers are not inherited, each is dropped where it was made.
select n.nspname, c.relname, t.tgname
from pg_trigger t
join pg_proc p on p.oid = t.tgfoid
join pg_namespace pn on pn.oid = p.pronamespace and pn.nspname = 'cdc_audit'
join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace
where t.tgname in ('cdc_audit_context', 'cdc_audit_session')
order by 1, 2, 3;

-- name: drop_trigger
-- template: table, trigger
drop trigger if exists {trigger} on {table};

-- name: drop_functions
drop function
    cdc_audit.set_context(text), cdc_audit.set_context(json), cdc_audit.set_context(jsonb),
    cdc_audit.log_event(text, text, text, jsonb, boolean), cdc_audit.context_from_setting(),
    cdc_audit.emit(text, boolean, jsonb), cdc_audit.refusal(jsonb), cdc_audit.rotate_key(), cdc_audit.prefix(), cdc_audit.version();
drop function if exists cdc_audit.session_to_stream();
drop table cdc_audit.context_key;
drop schema cdc_audit;
