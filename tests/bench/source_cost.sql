-- name: triggers
-- The usual audit by triggers: a row for each change in a table of the same database.
create table public.audit_logs (
    id bigint generated always as identity primary key,
    created_at timestamptz not null default now(),
    table_name text not null,
    record_id text,
    action text not null,
    old_data jsonb,
    new_data jsonb,
    user_id text
);
create index on public.audit_logs (table_name, record_id, created_at);
create index on public.audit_logs (user_id, created_at);

create function public.audit() returns trigger language plpgsql as $$
declare
    before jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
    after jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
begin
    insert into public.audit_logs (table_name, record_id, action, old_data, new_data, user_id)
    values (tg_table_name, coalesce(after, before) ->> tg_argv[0], tg_op, before, after,
            current_setting('app.current_user', true));
    return null;
end
$$;
create trigger audit after insert or update or delete on public.pgbench_accounts
    for each row execute function public.audit('aid');
create trigger audit after insert or update or delete on public.pgbench_tellers
    for each row execute function public.audit('tid');
create trigger audit after insert or update or delete on public.pgbench_branches
    for each row execute function public.audit('bid');
create trigger audit after insert or update or delete on public.pgbench_history
    for each row execute function public.audit('aid');

-- name: sessions
-- Of the daemon: what it writes by is one of them.
select pid from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
