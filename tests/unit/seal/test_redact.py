"""What redaction hides: by columns' names, by rules, and by keys inside JSON, contexts and events."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_audit.config import RedactRule
from cdc_audit.join.context import Said, read, to_context
from cdc_audit.model.context import NO_CONTEXT, Context, Trust
from cdc_audit.model.event import ApplicationEvent, Begin, Change, Row, Shape
from cdc_audit.model.jsonb import canonical
from cdc_audit.seal.lines import LineWriter
from cdc_audit.seal.redact import Redaction, is_secret_name, mask_keys

KEY = b"k" * 32
RECORD, OLD, NEW, CHANGED, CONTEXT = 4, 6, 7, 8, 13  # places in a line


def rule(column: str, mode: str, table: str = "*.*") -> RedactRule:
    return RedactRule.model_validate({"table": table, "column": column, "mode": mode})


def update(new: list[bytes], old: list[bytes], columns: tuple[str, ...], nested: tuple[str, ...] = ()) -> Row:
    return (Shape("UPDATE", "public", "t", "", columns, columns, True, ("id",), (), nested=nested), new, old)


def insert(values: list[bytes], columns: tuple[str, ...], key: tuple[str, ...] = ("id",)) -> Row:
    return (Shape("INSERT", "public", "t", "", columns, (), False, key, (), nested=columns), values, [])


def line(change: Change, *rules: RedactRule, context: Context = NO_CONTEXT) -> list[bytes]:
    """The fields of a change's line."""
    return counted(change, *rules, context=context)[0]


def counted(change: Change, *rules: RedactRule, context: Context = NO_CONTEXT) -> tuple[list[bytes], int]:
    """The fields of a change's line, and how many values were redacted."""
    writer = LineWriter(Redaction(rules, KEY))
    lines: list[bytes] = []
    begin = Begin(7, 256, "2026-11-22 19:19:02+00")
    writer.write(begin, context, [change], first_id=1, first_seq=1, lines=lines, leaves=[])
    return lines[0].split(b"\t"), writer.redacted_values


def test_secrets_are_masked_in_both_images_and_still_named_as_changed() -> None:
    columns = ("id", "user_password", "note")
    found, count = counted(update([b"1", b'"new"', b"1"], [b"1", b'"old"', b"1"], columns))
    assert b"new" not in b"".join(found) and b"old" not in b"".join(found)
    assert found[CHANGED] == b"{user_password}"
    assert found[NEW] == b'{"id": 1, "note": 1, "user_password": "[redacted]"}'
    assert count == 2


def test_a_secret_that_did_not_change_is_not_named_as_changed_and_null_stays_null() -> None:
    found, count = counted(
        update([b"1", b'"same"', b"null"], [b"1", b'"same"', b"null"], ("id", "pin", "otp"))
    )
    assert found[CHANGED] == b"{}"
    assert found[NEW] == b'{"id": 1, "otp": null, "pin": "[redacted]"}'
    assert count == 2


def test_rules_drop_mask_and_keep_by_table_and_column() -> None:
    rules = (
        rule("name", "drop", "public.*"),
        rule("token", "keep", "*.t"),
        rule("id", "mask"),
    )
    found = line(update([b"1", b'"n"', b'"x"'], [b"1", b'"m"', b'"x"'], ("id", "name", "token")), *rules)
    assert found[NEW] == b'{"id": "[redacted]", "token": "x"}'
    assert (found[RECORD], found[CHANGED]) == (b"[redacted]", b"{name}")


def test_the_values_given_are_left_as_they_are() -> None:
    new, old = [b"1", b'"n"'], [b"1", b'"o"']
    line(update(new, old, ("id", "password")))
    assert (new, old) == ([b"1", b'"n"'], [b"1", b'"o"'])


def test_equal_values_have_equal_hmacs_in_all_columns_and_tables() -> None:
    expected = b"hmac:" + hmac.new(KEY, b'"123-45"', sha256).hexdigest()[:32].encode()
    found = line(insert([b'"123-45"', b'"123-45"', b'"123-46"'], ("id", "ssn", "b")), rule("*", "hmac"))
    image = json.loads(found[NEW])
    assert image["id"] == image["ssn"] == expected.decode()
    assert image["b"].startswith("hmac:") and image["b"] != image["ssn"]
    assert found[RECORD] == expected


@pytest.mark.parametrize(
    ("mode", "single", "composite"),
    [
        ("mask", b"[redacted]", b'["[redacted]", "7"]'),
        ("drop", b"\\N", b'[null, "7"]'),
        ("hmac", b"hmac:" + hmac.new(KEY, b'"k1"', sha256).hexdigest()[:32].encode(), None),
        ("keep", b"k1", b'["k1", "7"]'),
    ],
)
def test_a_key_that_is_redacted_is_not_in_record_id(
    mode: str, single: bytes, composite: bytes | None
) -> None:
    """Neither in the images of an identity that is only the key."""
    shape = Shape("DELETE", "public", "t", "", (), ("code",), False, ("code",), ())
    found = line((shape, [], [b'"k1"']), rule("code", mode))
    assert found[RECORD] == single
    assert (b"k1" in b"".join(found)) is (mode == "keep")
    found = line(insert([b'"k1"', b"7"], ("code", "n"), ("code", "n")), rule("code", mode))
    assert found[RECORD] == (composite or b'["%b", "7"]' % single)


def test_a_json_key_column_is_masked_in_record_id_too() -> None:
    found = line(insert([b'{"pin": "1234"}'], ("doc",), ("doc",)))
    assert found[RECORD] == b'{"pin": "[redacted]"}'


def test_secret_keys_in_json_are_masked_in_both_images_and_keep_turns_that_off() -> None:
    columns, new, old = ("id", "doc"), b'{"a": 1.10, "password": "n"}', b'{"a": 1.10, "password": "o"}'
    found, count = counted(update([b"1", new], [b"1", old], columns, nested=("doc",)))
    assert found[OLD] == found[NEW] == b'{"id": 1, "doc": {"a": 1.10, "password": "[redacted]"}}'
    assert (found[CHANGED], count) == (b"{doc}", 2)
    found, count = counted(update([b"1", new], [b"1", old], columns, nested=("doc",)), rule("doc", "keep"))
    assert (found[NEW], count) == (b'{"id": 1, "doc": ' + new + b"}", 0)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"a": {"b": [{"userPassword": "x"}, 1]}}', '{"a": {"b": [{"userPassword": "[redacted]"}, 1]}}'),
        ('[[{"pin": 1234567890123456789.10}], 2.50]', '[[{"pin": "[redacted]"}], 2.50]'),
        ('{"token": {"a": ["}", {"b": "\\"]"}]}, "z": 1e5}', '{"z": 100000, "token": "[redacted]"}'),
        ('{"secrets": [], "password": null, "x": true}', '{"x": true, "secrets": "[redacted]", "password": null}'),
        ('{"api\\nkey": true, "api_key": false}', '{"api_key": "[redacted]", "api\\nkey": "[redacted]"}'),
        ('{"p\\u0061ssword": 1}', '{"password": "[redacted]"}'),
        ('{"note": "password: hunter2", "keys": "token"}', None),
        ('{"compassion": 1, "shipping": {"carden": 2}}', None),
        ('{"password": "[redacted]"}', None),
        ('"a password"', None),
        ("12.50", None),
        # the text of JSON inside of JSON: of a payload, say, or of a json column that jsonb can't hold
        ('{"body": "{\\"pin\\" : 1}", "x": 1}', '{"x": 1, "body": "[redacted]"}'),
        ('"\\n [{\\"a\\\\u0000\\": 1, \\"p\\\\u0061ssword\\": 2}]"', '"[redacted]"'),
        ('"{\\"a\\": \\"{\\\\\\"token\\\\\\":1}\\"}"', '"[redacted]"'),
        ('"[info] the token: expired"', None),
    ],
)  # fmt: skip
def test_json_is_masked_by_its_keys_at_any_depth_and_else_kept_byte_for_byte(
    before: str, after: str | None
) -> None:
    token = canonical(before)
    assert mask_keys(token) == (token if after is None else canonical(after))


NAMES = st.sampled_from(["password", "pin", "apiKey", "a", "key", 'q"\\', "é", "client secret", "x-token"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('{}[]:," \\ab\n') | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=12,
)


def masked(value: object) -> object:
    """What ``mask_keys`` should do, by way of objects."""
    if isinstance(value, dict):
        return {
            key: "[redacted]" if is_secret_name(key) and item is not None else masked(item)
            for key, item in value.items()
        }
    return [masked(item) for item in value] if isinstance(value, list) else value


@given(DOCUMENTS)
def test_any_document_is_masked_as_its_objects_would_be(document: object) -> None:
    token = canonical(json.dumps(document))
    assert mask_keys(token) == canonical(json.dumps(masked(document)))


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("userPassword", True),
        ("userpassword", True),
        ("accesstoken", True),
        ("API_KEY", True),
        ("clientapikey", True),
        ("card-number", True),
        ("pin", True),
        ("SSN", True),
        ("compassion", False),
        ("spinning", False),
        ("secretary", False),
        ("author", False),
        ("keyboard", False),
        ("card_notes", False),
        ("tokenized", False),
    ],
)
def test_a_secret_is_told_by_a_word_of_its_name(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret
    assert (mask_keys(canonical(json.dumps({name: 1}))) != canonical(json.dumps({name: 1}))) is secret


def said(content: str) -> Context:
    return to_context(read(content, kind="context", xid=7, keys={}))


def test_secrets_in_a_context_are_masked_at_any_depth_and_counted_once() -> None:
    context = said('{"user_id":"u","reason":1.50,"login":{"password":"x","pins":[{"pin":1}]}}')
    found, count = counted(insert([b"1"], ("id",)), context=context)
    assert found[9] == b"u"
    assert json.loads(found[CONTEXT]) == {
        "reason": 1.5,
        "login": {"password": "[redacted]", "pins": [{"pin": "[redacted]"}]},
    }
    assert count == 1


def test_secrets_in_what_a_forged_context_claims_are_masked() -> None:
    context = to_context(Said(Trust.FORGED, {"user_id": "boss", "api_key": "x"}))
    found = line(insert([b"1"], ("id",)), context=context)
    assert found[CONTEXT] == b'{"claimed": {"api_key": "[redacted]", "user_id": "boss"}}'


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ('{"user_id":"u", who', True),
        ('{"user_id":"u","password":"x"', False),
        ("userpassword=x", False),
        ('{"user_id":"u","p\\u0061ssword":"x"', False),
        ("v1:k:00:{'apiKey': 'x'}", False),
    ],
)
def test_a_context_that_cannot_be_read_is_kept_only_if_no_word_in_it_tells_of_a_secret(
    content: str, kept: bool
) -> None:
    found = line(insert([b"1"], ("id",)), context=said(content))
    assert found[14] == b"invalid"
    raw = json.loads(found[CONTEXT].replace(b"\\\\", b"\\"))["raw"]
    assert raw == (content if kept else f"[redacted] {len(content)} characters")


def test_secrets_in_the_data_of_an_event_are_masked() -> None:
    found, count = counted(ApplicationEvent("LOGIN", "users", "7", b'{"ok": true, "password": "x"}'))
    assert found[NEW] == b'{"ok": true, "password": "[redacted]"}'
    assert count == 1
