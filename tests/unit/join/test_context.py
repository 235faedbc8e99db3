"""Who acts: what is believed, and how far."""

import hmac
import json

import pytest

from cdc_audit.join.context import MAX_BYTES, context_of, forget, inet, of_session, read, to_context
from cdc_audit.model.context import NO_CONTEXT, Context, ContextKey, Trust

SECRET = b"k" * 32
KEY = ContextKey(
    "k1", bytes(b ^ 0x36 for b in SECRET.ljust(64, b"\0")), bytes(b ^ 0x5C for b in SECRET.ljust(64, b"\0"))
)
KEYS = {"k1": KEY}


def signed(xid: int | None, context: object = None, *, kind: str = "context", **more: object) -> str:
    said = {"v": 1, "kind": kind, "xid": None if xid is None else str(xid), "session_user": "app", **more}
    body = json.dumps({**said, "context": context if context is not None else {"user_id": "u1"}})
    return f"v1:k1:{hmac.new(SECRET, body.encode(), 'sha256').hexdigest()}:{body}"


def test_a_plain_object_is_asserted_and_its_fields_go_to_their_columns() -> None:
    content = '{"user_id":"u1","email":"a@b.c","ip_address":"10.0.0.9","user_agent":"x","request_id":"r"}'
    context = to_context(read(content, kind="context", xid=1, keys=KEYS))
    assert context.trust is Trust.ASSERTED
    assert context[1:6] == ("u1", "a@b.c", "10.0.0.9", "x", '{"request_id": "r"}')


def test_a_right_signature_in_its_own_transaction_is_signed() -> None:
    context = to_context(read(signed((7 << 32) + 5), kind="context", xid=5, keys=KEYS))
    assert (context.trust, context.user_id, context.db_user) == (Trust.SIGNED, "u1", "app")


@pytest.mark.parametrize(
    "content",
    [
        signed(6),
        signed(5, kind="event"),
        signed(5).replace("u1", "u2"),
        signed(5).replace("v1:k1", "v1:k2"),
        signed(None),
    ],
    ids=["replayed", "other kind", "altered", "unknown key", "no xid"],
)
def test_a_wrong_signature_is_forged_and_names_nobody(content: str) -> None:
    context = to_context(read(content, kind="context", xid=5, keys=KEYS))
    assert (context.trust, context.user_id, context.db_user) == (Trust.FORGED, "", "")
    assert json.loads(context.rest)["claimed"]["user_id"] in {"u1", "u2"}


def own(xid: int, rest: str = '"user_id": "u7"', secret: bytes = SECRET) -> str:
    """As set_context prints it: what each transaction has of its own stands first."""
    shared = f'"kind": "context", "context": {{{rest}}}, "session_user": "app", "application_name": ""}}'
    body = f'{{"v": 1, "at": "2026-11-29T10:12:{xid % 60:02}+00:00", "xid": "{xid}", {shared}'
    return f"v1:k1:{hmac.new(secret, body.encode(), 'sha256').hexdigest()}:{body}"


def test_a_context_that_was_genuine_before_is_known_again_and_believed_no_sooner() -> None:
    forget()
    first = context_of(own(5), xid=5, keys=KEYS)
    assert (first.trust, first.user_id, first.db_user) == (Trust.SIGNED, "u7", "app")
    assert context_of(own((3 << 32) + 6), xid=6, keys=KEYS) is first
    altered = own(6).replace("10:12:06", "10:12:07")
    for content, xid in (
        (own(5), 6),
        (altered, 6),
        (own(6, secret=b"another"), 6),
        (own(6).replace("v1:k1", "v1:k2"), 6),
    ):
        context = context_of(content, xid=xid, keys=KEYS)
        assert (context.trust, context.user_id) == (Trust.FORGED, ""), content
    assert context_of(own(6), xid=6, keys={"k2": KEY}).trust is Trust.FORGED
    assert context_of(own(6), xid=6, keys={}).trust is Trust.ASSERTED
    unsigned = own(6).split('"6", ')[1]
    for content in (unsigned, "{" + unsigned, "v1:k1::" + unsigned, "v1:" + unsigned):
        assert context_of(content, xid=6, keys=KEYS).trust is not Trust.SIGNED
    assert context_of(own(6), xid=6, keys=KEYS) is first


def test_what_was_forged_is_no_better_the_second_time() -> None:
    forget()
    for _ in range(2):
        assert context_of(own(5), xid=6, keys=KEYS).trust is Trust.FORGED
    assert context_of(own(6), xid=6, keys=KEYS).trust is Trust.SIGNED


def test_a_context_that_says_its_transaction_twice_is_read_each_time() -> None:
    """set_context prints jsonb, where a key stands once; a key's owner may sign what he likes."""
    forget()
    twice = '"user_id": "u7"}, "xid": "9", "more": {'
    assert context_of(own(9, twice), xid=9, keys=KEYS).trust is Trust.SIGNED
    assert context_of(own(5, twice), xid=5, keys=KEYS).trust is Trust.FORGED


def test_without_any_key_a_signed_context_is_only_asserted() -> None:
    assert read(signed(99), kind="context", xid=5, keys={}).trust is Trust.ASSERTED


@pytest.mark.parametrize(
    "content",
    [
        "",
        "nonsense",
        "[1]",
        "null",
        '{"a":' * 17 + "1" + "}" * 17,
        '{"a":"' + "x" * MAX_BYTES + '"}',
        '{"a":"\\u0000"}',
        '{"a":"\\ud800"}',
        '{"user_id":"a","user_id":"b"}',
        '{"a":NaN}',
        "v1:k1:00",
        "v1:k1:00:[]",
        "[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_invalid_and_its_text_is_kept_up_to_a_kilobyte(content: str) -> None:
    context = to_context(read(content, kind="context", xid=5, keys=KEYS))
    assert (context.trust, context.user_id) == (Trust.INVALID, "")
    assert json.loads(context.rest)["raw"] == content[:1024].replace("\0", "\ufffd")


def test_a_signed_context_may_be_as_deep_as_a_plain_one() -> None:
    context: object = 1
    for _ in range(15):
        context = {"a": context}
    content = signed(5, {"a": context})
    assert read(content, kind="context", xid=5, keys=KEYS).trust is Trust.SIGNED


def test_the_limit_is_the_limit_and_brackets_in_strings_are_no_nesting() -> None:
    content = json.dumps({"a": "[{" * 20})
    assert read(content, kind="context", xid=5, keys=KEYS).trust is Trust.ASSERTED
    just = '{"a":"' + "x" * (MAX_BYTES - 8) + '"}'
    assert read(just, kind="context", xid=5, keys=KEYS).trust is Trust.ASSERTED


def test_what_does_not_fit_its_column_stays_in_the_context() -> None:
    content = '{"user_id":{"n":1},"ip_address":"no address","email":7,"amount":1.50}'
    context = to_context(read(content, kind="context", xid=1, keys={}))
    assert (context.user_id, context.ip_address, context.user_email) == ("", "", "7")
    assert context.rest == '{"amount": 1.50, "user_id": {"n": 1}, "ip_address": "no address"}'


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("10.0.0.9", "10.0.0.9"),
        ("10.0.0.9/32", "10.0.0.9"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:10.0.0.9", "::ffff:10.0.0.9"),
        ("::1", "::1"),
        ("::", "::"),
        ("fe80::1%eth0", ""),
        ("300.1.1.1", ""),
    ],
)
def test_an_address_is_written_as_inet_prints_it(given: str, shown: str) -> None:
    assert inet(given) == shown


def test_a_signed_session_names_nobody_but_its_database_user_and_marks_that() -> None:
    content = signed(5, kind="session", application_name="psql", client_addr="10.0.0.7")
    context = of_session(read(content, kind="session", xid=5, keys=KEYS))
    mark = '{"session": {"trust": "signed", "client_addr": "10.0.0.7"}}'
    assert context == Context(Trust.NONE, rest=mark, db_user="app", application_name="psql")


def test_a_session_of_a_local_socket_has_no_address() -> None:
    content = signed(5, kind="session", client_addr=None)
    context = of_session(read(content, kind="session", xid=5, keys=KEYS))
    assert context.rest == '{"session": {"trust": "signed"}}'


@pytest.mark.parametrize(
    "content", [signed(6, kind="session"), signed(5), signed(5, kind="session").replace('"app"', '"ceo"')]
)
def test_a_session_replayed_of_another_kind_or_altered_is_forged(content: str) -> None:
    context = of_session(read(content, kind="session", xid=5, keys=KEYS))
    assert (context.trust, context.db_user) == (Trust.FORGED, "")


def test_a_session_that_nobody_signed_says_nothing_and_one_that_can_t_be_read_is_invalid() -> None:
    for content in ("{}", '{"session_user":"ceo"}', '{"user_id":"ceo"}'):
        assert of_session(read(content, kind="session", xid=5, keys=KEYS)) == NO_CONTEXT
    assert of_session(read("nonsense", kind="session", xid=5, keys=KEYS)).trust is Trust.INVALID


@pytest.mark.parametrize(
    "rest",
    [
        '"kind": "context", "context": {"user_id": "u1", "deep": {"a": [1, {"b": 2}]}}, "session_user": "app"}',
        '"kind": "context", "context": {"user_id": "é\\u00e9", "n": 1.50}, "session_user": "app"}',
        '"kind": "context", "context": {}, "session_user": null}',
        '"v": 2, "at": "later", "kind": "context", "context": {"user_id": "u1"}}',
        '"xid": "9", "kind": "context", "context": {"user_id": "u1"}}',
        '"kind": "context", "context": ["no object"]}',
        '"kind": "context", "context": {"a": {"a": ' + "[" * 20 + "]" * 20 + "}}}",
        '"kind": "context", "context": {"user_id": "u1"}',
        "}",
        "",
    ],
)
def test_what_transactions_share_is_read_once_and_as_if_each_were_read_alone(rest: str) -> None:
    def content(xid: int, blank: str) -> str:  # with another blank it isn't what set_context sends
        body = f'{{"v":{blank}1, "at": "2026-11-28T12:47:54.8+00:00", "xid": "{xid}", {rest}'
        return f"v1:k1:{hmac.new(SECRET, body.encode(), 'sha256').hexdigest()}:{body}"

    for xid in (5, 6, 7):
        shared, alone = (
            read(content(xid, blank), kind="context", xid=xid, keys=KEYS) for blank in (" ", "  ")
        )
        assert shared._replace(raw="", fields={}) == alone._replace(raw="", fields={})
        if shared.trust is not Trust.INVALID:  # else the text is kept, which differs
            assert to_context(shared) == to_context(alone)
            assert shared.trust is (Trust.FORGED if '"xid"' in rest else Trust.SIGNED)
