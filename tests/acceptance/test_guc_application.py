"""An application that was written for audit triggers, with its user in a setting: it changes nothing, the trail says the same."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

from tests.support.daemon import cdc_audit
from tests.support.databases import Databases
from tests.support.live import running

# What such applications have: a trigger for each row, and a table beside the data that says who.
APPLICATION = """
create schema shop;
create table shop.customers (id int primary key, name text);
create table shop.orders (id bigint generated always as identity primary key, customer int, state text);
create table public.audit_log (
    n bigint generated always as identity, xid text, table_name text, record_id text, action text, user_id text);
create function public.audit() returns trigger language plpgsql as $$ begin
    insert into public.audit_log (xid, table_name, record_id, action, user_id)
    values (pg_current_xact_id()::xid::text, tg_table_name,
            case tg_op when 'DELETE' then old.id else new.id end, tg_op,
            nullif(current_setting('app.current_user', true), '')::jsonb ->> 'user_id');
    return null;
end $$;
create trigger audit after insert or update or delete on shop.customers for each row execute function public.audit();
create trigger audit after insert or update or delete on shop.orders for each row execute function public.audit();
insert into shop.customers select n, 'c' || n from generate_series(1, 50) n;
"""
SET = "select set_config('app.current_user', %s, true)"
MESSAGES = """
select count(*) filter (where data like 'message: transactional: 1 prefix: cdc_audit.context%'), count(distinct xid::text)
from pg_logical_slot_get_changes('watch', null, null) where data like 'message%' or data like 'table shop.%'
"""


def work(dsn: str, worker: int, transactions: int) -> None:
    """One session's transactions, each its user's: several statements, rolled back parts, a second user, none at all."""
    draw = random.Random(worker)
    with psycopg.connect(dsn) as db:
        for _ in range(transactions):
            user = json.dumps({"user_id": draw.choice(["ann", "ben", "o'\"hara"]), "ip_address": "10.0.0.9"})
            if draw.random() < 0.9:
                db.execute(SET, (user,))
            for _ in range(draw.randint(1, 4)):
                customer = draw.randint(1, 10) + 10 * worker
                db.execute("insert into shop.orders (customer, state) values (%s, 'new')", (customer,))
                db.execute(
                    "update shop.orders set state = 'paid' where customer = %s and state = 'new'", (customer,)
                )
            if draw.random() < 0.3:
                with db.transaction(force_rollback=True):
                    db.execute(SET, ('{"user_id": "nobody"}',))
                    db.execute("delete from shop.orders")
                db.execute("update shop.customers set name = name || '.' where id = %s", (1 + 10 * worker,))
            if draw.random() < 0.2:
                db.execute(SET, ('{"user_id": "second"}',))
                db.execute("delete from shop.orders where customer = %s", (customer,))
            if draw.random() < 0.1:
                db.rollback()
            db.commit()


def objects(databases: Databases) -> list[tuple[object, ...]]:
    """Whatever stands in the source's catalogs beside what the tests themselves put there, with owners and rights."""
    return databases.source.execute(
        """
        select 'schema', nspname, nspacl::text, '' from pg_namespace where nspname !~ '^pg_(toast|temp)' and nspname <> 'oracle'
        union all select 'trigger', tgname, tgrelid::regclass::text, tgenabled::text from pg_trigger
        where tgrelid::regclass::text <> 'mark'
        union all select 'function', oid::regprocedure::text, proacl::text, proconfig::text from pg_proc
        where pronamespace <> coalesce(to_regnamespace('oracle'), 0)
        union all select 'relation', oid::regclass::text, relacl::text, reloptions::text from pg_class
        where relkind in ('r', 'v', 'p', 'm', 'S') and relnamespace <> coalesce(to_regnamespace('oracle'), 0)
          and relname !~ '^mark'
        union all select 'event trigger', evtname, evtevent, '' from pg_event_trigger
        union all select 'setting', setdatabase::text, setrole::text, setconfig::text from pg_db_role_setting
        union all select 'publication', pubname, '', '' from pg_publication
        order by 1, 2, 3
        """,
        dbname=databases.source_name,
    )


def test_the_trail_names_the_users_that_the_triggers_recorded_and_afterwards_no_trace_is_left(
    databases: Databases, tmp_path: Path
) -> None:
    databases.source.execute(APPLICATION, dbname=databases.source_name)
    before = objects(databases)
    with running(databases, tmp_path / "log") as live:
        env = databases.environment()
        done = cdc_audit("source", "install", "--guc", "app.current_user", "--tables", "shop.*", env=env)
        assert done.returncode == 0, done.stderr
        live.source.execute("select pg_create_logical_replication_slot('watch', 'test_decoding')")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda n: work(databases.source_dsn, n, 100), range(4)))
        live.settle()
        said = live.source.execute(
            "select xid, table_name, record_id, action, user_id from public.audit_log where n > 50 order by 1, n"
        ).fetchall()
        trail = live.audit.execute(
            "select xid::text, table_name, record_id, action, user_id from audit.audit_logs"
            " where schema_name = 'shop' order by 1, seq"
        ).fetchall()
        assert len(said) > 1000
        assert {row[4] for row in said} == {"ann", "ben", "o'\"hara", "second", None}
        assert trail == said
        ((messages, written),) = live.source.execute(MESSAGES).fetchall()
        assert messages < written * 1.5  # of two users in some transactions, and of nobody before one
        live.source.execute("select pg_drop_replication_slot('watch')")
    done = cdc_audit("source", "uninstall", "--yes", env=env)
    assert done.returncode == 0, done.stderr
    assert objects(databases) == before
    work(databases.source_dsn, 0, 5)
