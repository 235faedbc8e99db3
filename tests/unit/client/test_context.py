"""Contexts nest, merge, and are nobody else's: threads, tasks, generators."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from cdc_audit.client import audit_context, current_context, for_process, identify


def test_contexts_merge_over_those_around_them_and_end() -> None:
    with audit_context(user_id="u1", reason="a"):
        with audit_context(reason="b", request_id=7):
            assert current_context() == {"user_id": "u1", "reason": "b", "request_id": 7}
        with audit_context(reason=None):
            assert current_context() == {"user_id": "u1"}
        assert current_context() == {"user_id": "u1", "reason": "a"}
    assert current_context() == {}


def test_a_context_ends_with_an_exception_too() -> None:
    with pytest.raises(KeyError), audit_context(user_id="u1"):
        raise KeyError
    assert current_context() == {}


def test_a_context_is_entered_once() -> None:
    context = audit_context(user_id="u1")
    with context, pytest.raises(RuntimeError), context:
        pass


def test_another_thread_does_not_see_it() -> None:
    seen: list[object] = []
    with audit_context(user_id="u1"):
        thread = threading.Thread(target=lambda: seen.append(current_context()))
        thread.start()
        thread.join()
    assert seen == [{}]


def test_tasks_have_their_own_and_inherit_what_holds_where_they_are_made() -> None:
    async def task(user: str) -> object:
        async with audit_context(user_id=user):
            await asyncio.sleep(0)
            return current_context()["user_id"], current_context()["request"]

    async def main() -> list[object]:
        async with audit_context(request="r"):
            return list(await asyncio.gather(*(task(f"u{n}") for n in range(50))))

    assert asyncio.run(main()) == [(f"u{n}", "r") for n in range(50)]


def test_who_it_is_may_be_said_later_and_holds_in_threads_of_the_same_request() -> None:
    async def main() -> object:
        async with audit_context(ip_address="10.0.0.9"):
            await asyncio.to_thread(identify, user_id="u1")
            return current_context()

    assert asyncio.run(main()) == {"ip_address": "10.0.0.9", "user_id": "u1"}
    with pytest.raises(RuntimeError, match="no audit_context"):
        identify(user_id="u1")


def test_a_field_may_be_a_function_and_its_failure_is_named() -> None:
    def fail() -> str:
        raise LookupError

    with audit_context(user_id=lambda: "u1", email=fail, nothing=lambda: None):
        assert current_context() == {"user_id": "u1", "_failed": ["email"]}


def test_a_process_may_say_what_it_is_around_every_context() -> None:
    for_process(command="migrate")
    try:
        assert current_context() == {"command": "migrate"}
        with audit_context(user_id="u1"):
            assert current_context() == {"command": "migrate", "user_id": "u1"}
    finally:
        for_process()
    assert current_context() == {}


def test_an_application_needs_nothing_but_python() -> None:
    code = """
import sys
before = set(sys.modules)
from cdc_audit.client import audit_context, identify, configure
new = {name.partition(".")[0] for name in set(sys.modules) - before}
print(sorted(name for name in new if name not in sys.stdlib_module_names))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['cdc_audit']"
