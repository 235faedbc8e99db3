"""pgoutput's messages into events; the messages are built here, as the PostgreSQL manual describes them."""

from __future__ import annotations

import struct
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cdc_audit.decode.pgoutput import PgOutputDecoder
from cdc_audit.decode.scope import Scope
from cdc_audit.errors import StreamError, UnknownTypeError
from cdc_audit.model.catalog import Catalog, TableInfo, TypeInfo, TypeKind
from cdc_audit.model.event import Begin, Commit, Decoded, Message, Row, Truncate

OID, PAIR = 16384, 20000
COLUMNS = (("id", 23), ("price", 1700), ("name", 25), ("ok", 16), ("at", 1184), ("doc", 3802), ("pair", PAIR))
INFO = TableInfo(
    "public", "t", ("public", "t"), "r", tuple((name, oid, name == "id") for name, oid in COLUMNS), ("id",)
)
TYPES: dict[int, TypeInfo | None] = {
    PAIR: TypeInfo(PAIR, TypeKind.COMPOSITE, PAIR, fields=(("a", 23), ("b", 25)))
}
MICROSECONDS = 848_949_542_555_107

Value = Any  # bytes, None, or NotImplemented for unchanged TOAST


class Table(NamedTuple):
    """What a Relation message says."""

    oid: int = OID
    schema: str = "public"
    name: str = "t"
    identity: str = "d"
    columns: tuple[tuple[str, int], ...] = COLUMNS
    key: tuple[str, ...] = ("id",)


def relation(table: Table) -> bytes:
    message = (
        b"R" + struct.pack(">I", table.oid) + table.schema.encode() + b"\0" + table.name.encode() + b"\0"
    )
    message += table.identity.encode() + struct.pack(">H", len(table.columns))
    for name, oid in table.columns:
        flags = table.identity == "f" or name in table.key
        message += bytes([flags]) + name.encode() + b"\0" + struct.pack(">Ii", oid, -1)
    return message


def tuple_data(values: tuple[Any, ...]) -> bytes:
    data = struct.pack(">H", len(values))
    for value in values:
        if value is None:
            data += b"n"
        elif value is NotImplemented:
            data += b"u"
        else:
            data += b"t" + struct.pack(">I", len(value)) + value
    return data


def row(action: str, new: Any = None, old: Any = None, kind: str = "O", oid: int = OID) -> bytes:
    message = action.encode() + struct.pack(">I", oid)
    if old is not None:
        message += kind.encode() + tuple_data(old)
    if new is not None:
        message += b"N" + tuple_data(new)
    return message


def begin(lsn: int = 0x1562518, at: int = MICROSECONDS, xid: int = 738) -> bytes:
    return b"B" + struct.pack(">QqI", lsn, at, xid)


def commit(lsn: int = 0x1562518, end: int = 0x1562688) -> bytes:
    return b"C\0" + struct.pack(">QQq", lsn, end, MICROSECONDS)


def message(content: bytes, *, transactional: bool = True, prefix: bytes = b"cdc_audit.context") -> bytes:
    head = b"M" + bytes([transactional]) + struct.pack(">Q", 16)
    return head + prefix + b"\0" + struct.pack(">I", len(content)) + content


def truncate(*oids: int) -> bytes:
    return b"T" + struct.pack(">IB", len(oids), 3) + b"".join(struct.pack(">I", oid) for oid in oids)


def decode(decoder: PgOutputDecoder, payload: bytes, *infos: TableInfo) -> Decoded:
    """As the pump does: what is asked for is looked up, and the message decoded again."""
    for _ in range(3):
        try:
            return decoder.decode(payload)
        except UnknownTypeError as unknown:
            known = {(info.schema, info.table): info for info in infos or (INFO,)}
            tables = {name: known.get(name) for name in unknown.tables}
            types = {oid: TYPES.get(oid) for oid in unknown.type_oids}
            decoder.learn(decoder.catalog.with_found(types, tables))
    return decoder.decode(payload)


def decode_row(decoder: PgOutputDecoder, payload: bytes) -> Row:
    event = decode(decoder, payload)
    assert type(event) is tuple
    return cast("Row", event)


def described(table: Table | None = None, *infos: TableInfo, scope: Scope | None = None) -> PgOutputDecoder:
    decoder = PgOutputDecoder(scope or Scope())
    assert decode(decoder, relation(table or Table()), *infos) is None
    return decoder


ONE: tuple[Value, ...] = (
    b"1",
    b"12345.60",
    b'say "x"',
    b"t",
    b"2026-11-22 19:19:02.5+00",
    b'{"a": 1}',
    b"(1,x)",
)
ONE_AS_JSON = [
    b"1",
    b"12345.60",
    b'"say \\"x\\""',
    b"true",
    b'"2026-11-22T19:19:02.5+00:00"',
    b'{"a": 1}',
    b'{"a": 1, "b": "x"}',
]


def test_begin_knows_its_time_and_only_commit_knows_its_end() -> None:
    decoder = PgOutputDecoder(Scope())
    assert decoder.decode(begin()) == Begin(738, 0, "2026-11-25 19:19:02.555107+00")
    assert decoder.decode(commit()) == Commit(0x1562688)


@pytest.mark.parametrize(
    ("microseconds", "text"),
    [
        (0, "2000-01-01 00:00:00+00"),
        (1_000_000, "2000-01-01 00:00:01+00"),
        (1_500_000, "2000-01-01 00:00:01.5+00"),
        (1_000_001, "2000-01-01 00:00:01.000001+00"),
        (-1, "1999-12-31 23:59:59.999999+00"),
        (10_000_000, "2000-01-01 00:00:10+00"),
    ],
)
def test_the_commit_s_time_is_as_postgresql_prints_it(microseconds: int, text: str) -> None:
    event = PgOutputDecoder(Scope()).decode(begin(at=microseconds))
    assert isinstance(event, Begin)
    assert event.committed_at == text


def test_a_commit_that_does_not_fit_its_begin_stops_the_stream() -> None:
    decoder = PgOutputDecoder(Scope())
    decoder.decode(begin())
    with pytest.raises(StreamError, match="does not fit its BEGIN"):
        decoder.decode(commit(lsn=5))
    with pytest.raises(StreamError, match="does not fit"):
        PgOutputDecoder(Scope()).decode(commit())


def test_origins_and_types_are_no_events() -> None:
    decoder = PgOutputDecoder(Scope())
    assert decoder.decode(b"O" + bytes(8) + b"somewhere\0") is None
    assert decoder.decode(b"Y" + bytes(4) + b"public\0pair\0") is None


def test_a_table_that_is_described_is_looked_up_each_time() -> None:
    """Its primary key may be why it is described again."""
    decoder = described()
    with pytest.raises(UnknownTypeError) as asked:
        decoder.decode(relation(Table()))
    assert asked.value.tables == {("public", "t")}
    assert asked.value.type_oids == frozenset()


def test_the_system_s_schema_comes_without_its_name() -> None:
    with pytest.raises(UnknownTypeError) as asked:
        PgOutputDecoder(Scope()).decode(relation(Table(schema="", name="pg_class")))
    assert asked.value.tables == {("pg_catalog", "pg_class")}


def test_an_insert_has_its_values_as_jsonb_prints_them() -> None:
    event = decode_row(described(), row("I", ONE))
    assert (event[0].action, event[0].new_columns) == ("INSERT", tuple(name for name, _ in COLUMNS))
    assert (event[1], event[2]) == (ONE_AS_JSON, [])


def test_nulls_are_null_and_text_that_says_null_is_text() -> None:
    event = decode_row(described(), row("I", (b"1", None, b"null", None, None, b"null", None)))
    assert event[1] == [b"1", b"null", b'"null"', b"null", b"null", b"null", b"null"]


@pytest.mark.parametrize("length", [0, 1, 255, 256, 1023, 1024, 65535, 65536, 0x740000])
def test_values_of_any_length_are_whole(length: int) -> None:
    text = b"t" * length
    for rest in ((b"t", None, None, None), (b"t", b"2026-11-22 19:19:02+00", b"1", b"(1,x)")):
        event = decode_row(described(), row("I", (b"1", b"2", text, *rest)))
        assert event[1][2] == b'"' + text + b'"'
        assert event[1][3] == b"true"


def test_a_full_old_row_gives_both_images_and_the_key_of_the_catalog() -> None:
    decoder = described(Table(identity="f"))
    new = (b"2", *ONE[1:])
    event = decode_row(decoder, row("U", new, ONE))
    assert (event[0].old_is_full, event[0].key, event[0].old_columns) == (True, ("id",), event[0].new_columns)
    assert (event[1], event[2]) == ([b"2", *ONE_AS_JSON[1:]], ONE_AS_JSON)
    deleted = decode_row(decoder, row("D", old=ONE))
    assert (deleted[0].old_is_full, deleted[1], deleted[2]) == (True, [], ONE_AS_JSON)


def test_images_never_share_a_list_and_change_of_one_null_is_seen() -> None:
    decoder = described(Table(identity="f"))
    some: tuple[Value, ...] = (b"1", None, b"a", None, None, b"1", None)
    other: tuple[Value, ...] = (b"1", b"2", None, None, b"2026-11-22 19:19:02+00", None, None)
    event = decode_row(decoder, row("U", other, some))
    assert event[1] == [b"1", b"2", b"null", b"null", b'"2026-11-22T19:19:02+00:00"', b"null", b"null"]
    assert event[2] == [b"1", b"null", b'"a"', b"null", b"null", b"1", b"null"]
    same = decode_row(decoder, row("U", some, some))
    assert same[1] == same[2]
    assert same[1] is not same[2]


def test_an_unchanged_toast_value_is_copied_from_a_full_old_row() -> None:
    decoder = described(Table(identity="f"))
    event = decode_row(decoder, row("U", (*ONE[:2], NotImplemented, *ONE[3:]), ONE))
    assert (event[0].unchanged_toast, event[1]) == ((), ONE_AS_JSON)


def test_without_one_it_is_absent_and_named_never_null() -> None:
    new = (b"1", b"2", NotImplemented, b"t", b"2026-11-22 19:19:02+00", NotImplemented, None)
    event = decode_row(described(), row("U", new))
    shape = event[0]
    assert shape.unchanged_toast == ("name", "doc")
    assert shape.new_columns == ("id", "price", "ok", "at", "pair")
    assert event[1] == [b"1", b"2", b"true", b'"2026-11-22T19:19:02+00:00"', b"null"]
    assert (shape.old_columns, event[2], shape.old_is_full) == (("id",), [b"1"], False)


def test_a_key_that_did_not_change_is_taken_from_the_new_row_as_wal2json_does() -> None:
    event = decode_row(described(), row("U", ONE))
    assert (event[0].old_columns, event[2], event[0].key) == (("id",), [b"1"], ("id",))
    assert (event[0].old_is_full, event[1]) == (False, ONE_AS_JSON)


def test_a_key_that_changed_is_the_old_row_s_and_its_nulls_are_no_values() -> None:
    old = (b"7", None, None, None, None, None, None)
    decoder = described()
    event = decode_row(decoder, row("U", ONE, old, "K"))
    assert (event[0].old_columns, event[2], event[0].old_is_full) == (("id",), [b"7"], False)
    deleted = decode_row(decoder, row("D", old=old, kind="K"))
    assert (deleted[0].old_columns, deleted[2], deleted[0].old_is_full) == (("id",), [b"7"], False)


def test_an_identity_index_is_the_key_only_where_there_is_no_primary_key() -> None:
    table = Table(identity="i", key=("name", "price"))
    with_key = decode_row(described(table), row("U", ONE))
    without = decode_row(described(table, INFO._replace(primary_key=())), row("U", ONE))
    assert (with_key[0].key, without[0].key) == (("id",), ("price", "name"))
    assert with_key[0].old_columns == without[0].old_columns == ("price", "name")
    assert with_key[2] == [b"12345.60", b'"say \\"x\\""']
    inserted = decode_row(described(table, INFO._replace(primary_key=())), row("I", ONE))
    assert inserted[0].key == ()


def test_without_any_identity_an_update_has_no_old_row() -> None:
    event = decode_row(described(Table(identity="n", key=())), row("U", ONE))
    assert (event[0].old_columns, event[2], event[0].old_is_full) == ((), [], False)


def test_a_key_of_all_columns_is_a_whole_row() -> None:
    table = Table(columns=(("a", 23), ("b", 23)), key=("a", "b"))
    info = INFO._replace(columns=(("a", 23, True), ("b", 23, True)), primary_key=("a", "b"))
    event = decode_row(described(table, info), row("U", (b"1", b"2")))
    assert (event[0].old_is_full, event[2]) == (True, [b"1", b"2"])


def test_a_key_whose_names_are_newer_than_the_row_is_found_by_its_place() -> None:
    table = Table(identity="f", columns=(("v", 25), ("id", 23)))
    newer = INFO._replace(
        columns=(("v", 25, False), ("ident", 23, True), ("x", 25, False)), primary_key=("ident",)
    )
    assert decode_row(described(table, newer), row("I", (b"a", b"1")))[0].key == ("id",)
    other = newer._replace(columns=(("v", 25, False), ("ident", 20, True)))
    assert decode_row(described(table, other), row("I", (b"a", b"1")))[0].key == ()
    later = newer._replace(primary_key=("x",))
    assert decode_row(described(table, later), row("I", (b"a", b"1")))[0].key == ()


def test_a_table_that_is_gone_keeps_the_key_that_it_had() -> None:
    decoder = described()
    gone = Table(identity="f", name="renamed")
    decode(decoder, relation(gone), INFO._replace(table="another"))
    assert decode_row(decoder, row("I", ONE))[0].key == ("id",)


def test_rows_of_one_form_share_one_shape_also_when_the_table_is_described_again() -> None:
    decoder = described()
    shapes = [decode_row(decoder, row("I", ONE))[0], decode_row(decoder, row("I", (*ONE[:6], None)))[0]]
    decode(decoder, relation(Table()))
    shapes.append(decode_row(decoder, row("I", ONE))[0])
    new = (b"1", b"2", NotImplemented, None, None, None, None)
    toast = [decode_row(decoder, row("U", new))[0], decode_row(decoder, row("U", new))[0]]
    assert shapes[0] is shapes[1] is shapes[2]
    assert toast[0] is toast[1]


def test_a_leaf_partition_is_named_after_its_root() -> None:
    leaf = INFO._replace(root=("sales", "orders"))
    decoder = described(Table(), leaf)
    shape = decode_row(decoder, row("I", ONE))[0]
    assert (shape.schema, shape.table, shape.partition) == ("sales", "orders", "t")
    assert decoder.decode(truncate(OID)) == [Truncate("sales", "orders", "t")]


def test_what_is_excluded_or_a_materialized_view_gives_no_event_until_the_scope_changes() -> None:
    decoder = described(scope=Scope(exclude=["public.t"]))
    assert decoder.decode(row("I", ONE)) is None
    assert decoder.decode(truncate(OID)) == []
    decoder.rescope(Scope())
    assert decode_row(decoder, row("I", ONE))[1] == ONE_AS_JSON
    decoder.rescope(Scope(["other.*"]))
    assert decoder.decode(row("I", ONE)) is None
    assert described(Table(), INFO._replace(kind="m")).decode(row("I", ONE)) is None


def test_one_truncate_message_gives_an_event_for_each_table_in_its_order() -> None:
    decoder = described()
    decode(decoder, relation(Table(oid=7, name="a")), INFO._replace(table="a", root=("public", "a")))
    assert decoder.decode(truncate(7, OID)) == [Truncate("public", "a", ""), Truncate("public", "t", "")]


def test_a_table_without_columns_has_empty_images() -> None:
    decoder = described(Table(columns=(), key=(), identity="f"), INFO._replace(columns=(), primary_key=()))
    assert decode_row(decoder, row("I", ()))[1:] == ([], [])
    event = decode_row(decoder, row("U", (), ()))
    assert (event[0].old_is_full, event[1], event[2]) == (False, [], [])


def test_messages_have_their_prefix_content_and_place() -> None:
    decoder = PgOutputDecoder(Scope())
    assert decoder.decode(message(b"{}")) == Message(True, "cdc_audit.context", "{}", 16)
    event = decoder.decode(message("é".encode(), transactional=False, prefix=b""))
    assert event == Message(False, "", "é", 16)


def test_a_message_that_is_not_text_is_not_taken_for_json_and_ends_at_nul() -> None:
    decoder = PgOutputDecoder(Scope())
    assert decoder.decode(message(b"{}\xe9")) == Message(True, "cdc_audit.context", "\ufffd{}é", 16)
    assert decoder.decode(message(b"{\0}")) == Message(True, "cdc_audit.context", "{", 16)


def test_bytes_of_another_server_encoding_become_utf_8() -> None:
    decoder = PgOutputDecoder(Scope(), encoding="latin-1")
    table = relation(Table()).replace(b"name", b"n\xe9me")
    decode(decoder, table, INFO)
    event = decode_row(decoder, row("I", (b"1", b"2", b"caf\xe9", b"t", None, b'"\xe9"', b"(1,\xe9)")))
    assert "néme" in event[0].new_columns
    assert event[1][2:] == [
        '"café"'.encode(),
        b"true",
        b"null",
        '"é"'.encode(),
        '{"a": 1, "b": "é"}'.encode(),
    ]


def test_bytes_of_no_known_encoding_are_taken_for_latin_1_one_by_one() -> None:
    """As in a SQL_ASCII database."""
    event = decode_row(
        described(), row("I", (b"1", b"2", b"\xc3\xa9\xe9", b"t", None, b'"\xe9"', b"(1,\xe9)"))
    )
    assert event[1][2] == '"éé"'.encode()
    assert event[1][5:] == ['"é"'.encode(), '{"a": 1, "b": "é"}'.encode()]


def test_a_type_that_was_altered_is_looked_up_again_and_what_never_fits_stays_text() -> None:
    decoder = described()
    wide = row("I", (*ONE[:6], b"(1,x,t)"))
    with pytest.raises(UnknownTypeError) as asked:
        decoder.decode(wide)
    assert asked.value.type_oids == {PAIR}
    info = TypeInfo(PAIR, TypeKind.COMPOSITE, PAIR, fields=(("a", 23), ("b", 25), ("c", 16)))
    decoder.learn(Catalog({PAIR: info}, decoder.catalog.tables))
    assert decode_row(decoder, wide)[1][6] == b'{"a": 1, "b": "x", "c": true}'
    assert decode_row(decoder, wide)[1][6] == b'{"a": 1, "b": "x", "c": true}'
    assert decode_row(described(), row("I", (*ONE[:6], b"(1,x,y,z)")))[1][6] == b'"(1,x,y,z)"'


def test_a_publication_that_the_server_does_not_find_stops_the_stream_with_the_remedy() -> None:
    """From PostgreSQL 18 on it would go on without that publication's tables."""
    decoder = PgOutputDecoder(Scope())
    assert decoder.decode_notice("something else") is None
    with pytest.raises(StreamError, match='publication "p" does not exist') as caught:
        decoder.decode_notice('skipped loading publication "p"')
    assert caught.value.remedy


SECRET = b"4111-1111"
SECRETS: tuple[Value, ...] = (
    b"1",
    b"12.5",
    SECRET,
    b"t",
    b"2026-11-22 19:19:02+00",
    b'"4111-1111"',
    b"(1,4111-1111)",
)
FULL = Table(identity="f")


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "unknown action"),
        (b"X123", "unknown action"),
        (b"S" + bytes(5), "unknown action"),
        (b"B123", "not built"),
        (begin(at=2**62), "not built"),
        (b"I", "not described"),
        (row("I", SECRETS, oid=1), "not described"),
        (row("I", SECRETS)[:-3], "has another length"),
        (row("I", SECRETS)[:20], "cut short"),
        (row("I", SECRETS) + b"x", "another length"),
        (row("I", SECRETS[:-1]), "more or fewer"),
        (row("I", (*SECRETS[:6], NotImplemented)), "lacks a value"),
        (row("I", old=SECRETS), "no new row"),
        (row("U", old=SECRETS), "cut short"),
        (row("U", old=SECRETS) + b"X", "no new row"),
        (row("U", SECRETS, (*SECRETS[:6], NotImplemented)), "lacks a value"),
        (row("D", SECRETS), "neither a key nor whole"),
        (row("D", old=SECRETS) + b"x", "another length"),
        (row("I", SECRETS).replace(b"t\0\0\0\x09", b"b\0\0\0\x09"), "unknown kind"),
        (row("I", (b"1", b"12.5", b"4111\x001111", *SECRETS[3:])), "type's form"),
        (row("I", (*SECRETS[:3], SECRET, *SECRETS[4:])), "type's form"),
        (row("I", (b"1", SECRET + b"x", *SECRETS[2:])), "type's form"),
        (truncate(OID, 1), "not described"),
        (truncate(OID)[:-1], "another length"),
        (message(SECRET)[:-1], "another length"),
        (message(SECRET)[:14], "does not end"),
        (relation(Table())[:-1], "another length"),
        (relation(Table(identity="x")), "another length or identity"),
        (relation(Table())[:20], "does not end"),
        (relation(Table())[:22], "cut short"),
        (relation(Table())[:14], "cut short"),
    ],
)
def test_what_pgoutput_never_sends_is_a_clear_error_without_values(payload: bytes, reason: str) -> None:
    with pytest.raises(StreamError, match=f"pgoutput, between transactions: .*{reason}") as caught:
        decode(described(FULL), payload)
    assert "4111" not in str(caught.value)


def test_an_error_names_the_transaction_by_its_commit_record() -> None:
    decoder = described()
    decoder.decode(begin())
    with pytest.raises(StreamError, match="whose commit record is at 0/1562518: "):
        decoder.decode(b"X")


WHOLE = [
    begin(),
    commit(),
    message(SECRET),
    relation(FULL),
    relation(Table(identity="i", key=("name",))),
    row("I", SECRETS),
    row("U", SECRETS, SECRETS),
    row("U", (*SECRETS[:2], NotImplemented, *SECRETS[3:])),
    row("U", SECRETS, SECRETS, "K"),
    row("D", old=SECRETS),
    row("D", old=(b"1", None, None, None, None, None, None), kind="K"),
    truncate(OID),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message with bytes changed, put in, taken out, or cut off."""
    payload = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(payload)))
        match draw(st.integers(0, 3)):
            case 0 if at < len(payload):
                payload[at] = draw(st.sampled_from((0, 1, 0x22, 0x5C, 0x7F, 0x80, 0xFF, 116, 110, 117)))
            case 1:
                payload[at:at] = draw(st.binary(max_size=5))
            case 2:
                del payload[at : at + draw(st.integers(1, 5))]
            case _:
                del payload[max(at, 1) :]
    return bytes(payload)


@settings(max_examples=2000, deadline=None)
@given(st.lists(mutated(), min_size=1, max_size=4))
@example([b"R" + struct.pack(">I", OID) + b"\0\0f\xff\xff", row("I", SECRETS)])
def test_mutated_messages_raise_nothing_but_the_decoder_s_own_errors_without_values(
    payloads: list[bytes],
) -> None:
    decoder = described(FULL)
    decoder.decode(begin())
    texts = []
    for payload in payloads:
        try:
            decode(decoder, payload)
        except StreamError as error:
            texts.append(str(error))
    assert not any("4111" in text for text in texts)
