"""wal2json's lines, as PostgreSQL 15.20 with wal2json 2.5 prints them, into events."""

from typing import cast

import pytest

from cdc_audit.decode.scope import Scope
from cdc_audit.decode.wal2json import Wal2JsonDecoder
from cdc_audit.errors import StreamError, UnknownTypeError
from cdc_audit.model.catalog import Catalog, TableInfo
from cdc_audit.model.event import Begin, Commit, Event, Message, Row, Suppressed, Truncate
from cdc_audit.model.lsn import parse_lsn

BEGIN = b'{"action":"B","xid":738,"timestamp":"2026-11-22 19:19:02.555107+00","lsn":"0/1562518","nextlsn":"0/1562688"}'
HEAD = (
    b'"xid":738,"timestamp":"2026-11-22 19:19:02.555107+00","lsn":"0/1562518","schema":"public","table":"t"'
)
COLUMNS = (("id", 23, True), ("price", 1700, False), ("name", 25, False))


def catalog(**tables: TableInfo | None) -> Catalog:
    known: dict[tuple[str, str], TableInfo | None] = {
        ("public", "t"): TableInfo("public", "t", ("public", "t"), "r", COLUMNS)
    }
    for name, info in tables.items():
        known["public", name] = info
    return Catalog({}, known)


def decode(decoder: Wal2JsonDecoder, line: bytes, known: Catalog | None = None) -> Event | None:
    for _ in range(2):
        try:
            return decoder.decode(line)
        except UnknownTypeError:
            decoder.learn(known or catalog())
    return decoder.decode(line)


def decode_row(decoder: Wal2JsonDecoder, line: bytes, known: Catalog | None = None) -> Row:
    event = decode(decoder, line, known)
    assert type(event) is tuple
    return cast("Row", event)


def column(name: str, oid: int, value: str) -> str:
    return f'{{"name":"{name}","typeoid":{oid},"value":{value}}}'


def row(action: str, columns: str = "", identity: str = "", pk: str = '{"name":"id","typeoid":23}') -> bytes:
    line = f'{{"action":"{action}",'.encode() + HEAD
    if columns:
        line += f',"columns":[{columns}]'.encode()
    if identity:
        line += f',"identity":[{identity}]'.encode()
    return line + f',"pk":[{pk}]}}'.encode()


def values(id_: int, price: str, name: str) -> str:
    return ",".join([column("id", 23, str(id_)), column("price", 1700, price), column("name", 25, name)])


def test_begin_and_commit_carry_the_end_of_the_commit_record() -> None:
    decoder = Wal2JsonDecoder(Scope())
    assert decoder.decode(BEGIN) == Begin(738, parse_lsn("0/1562688"), "2026-11-22 19:19:02.555107+00")
    assert decoder.decode(BEGIN.replace(b'"B"', b'"C"')) == Commit(parse_lsn("0/1562688"))


@pytest.mark.parametrize(
    "moment", ["2026-11-22 19:19:02+00", "2026-11-22 19:19:02.5+00", "2026-11-22 19:19:02.000001+00"]
)
def test_a_commit_time_has_none_to_six_decimals_and_is_kept_as_it_is_printed(moment: str) -> None:
    """Case 57."""
    begin = Wal2JsonDecoder(Scope()).decode(BEGIN.replace(b"2026-11-22 19:19:02.555107+00", moment.encode()))
    assert begin == Begin(738, parse_lsn("0/1562688"), moment)


def test_keys_of_newer_versions_are_ignored_and_actions_stop_the_stream() -> None:
    """Case 84."""
    decoder = Wal2JsonDecoder(Scope())
    line = row("I", values(1, "2", '"a"')).replace(b'"lsn"', b'"new":{"a":[1]},"lsn"')
    line = line.replace(b'"typeoid"', b'"later":true,"typeoid"')[:-1] + b',"more":null}'
    assert decode_row(decoder, line)[1] == [b"1", b"2", b'"a"']
    assert decode(decoder, BEGIN[:-1] + b',"more":null}')
    with pytest.raises(StreamError, match="unknown action b'Q': this wal2json is newer"):
        decoder.decode(b'{"action":"Q","xid":1}')


def test_after_a_transaction_without_rows_tables_and_types_are_looked_up_again() -> None:
    """Case 1: it is all that is seen of DDL; tables at most once a second of commit time."""
    decoder = Wal2JsonDecoder(Scope())
    line = row("I", values(1, "2", '"a"'))
    decode_row(decoder, line)
    for second, is_asked in ((b"02", True), (b"02", False), (b"03", True)):
        at = BEGIN.replace(b"19:19:02", b"19:19:" + second)
        for message in (at, at.replace(b'"B"', b'"C"'), at):
            decoder.decode(message)
        if is_asked:
            with pytest.raises(UnknownTypeError):
                decoder.decode(line)
            decoder.learn(catalog())
        assert decoder.decode(line)
        decoder.decode(at.replace(b'"B"', b'"C"'))


def test_a_commit_that_does_not_fit_its_begin_stops_the_stream() -> None:
    decoder = Wal2JsonDecoder(Scope())
    decoder.decode(BEGIN)
    with pytest.raises(StreamError, match="does not fit"):
        decoder.decode(BEGIN.replace(b'"B"', b'"C"').replace(b"738", b"739"))


def test_numerics_keep_every_digit() -> None:
    event = decode_row(
        Wal2JsonDecoder(Scope()), row("I", values(1, "123456789012345678901234567890.10", '"a"'))
    )
    assert event[1][1] == b"123456789012345678901234567890.10"


def test_text_that_looks_like_the_line_s_own_structure_stays_text() -> None:
    hostile = r'"},{\"name\":\"x\",\"value\":1}],\"pk\":[ \\\" ,\"value\":"'
    decoder = Wal2JsonDecoder(Scope())
    for number in range(3):
        event = decode_row(decoder, row("I", values(number, "1", hostile)))
        assert event[1] == [str(number).encode(), b"1", hostile.encode()]


def test_rows_of_one_form_share_one_shape_and_another_form_gets_another() -> None:
    decoder = Wal2JsonDecoder(Scope())
    first = decode_row(decoder, row("I", values(1, "1", '"a"')))
    second = decode_row(decoder, row("I", values(2, "2.50", "null")))
    wider = decode_row(decoder, row("I", values(3, "3", '"c"') + "," + column("more", 16, "true")))
    assert first[0] is second[0]
    assert wider[0] is not first[0]
    assert second[1] == [b"2", b"2.50", b"null"]
    assert wider[1][3] == b"true"


def test_replica_identity_full_gives_both_images_and_the_key() -> None:
    event = decode_row(Wal2JsonDecoder(Scope()), row("U", values(1, "2", '"b"'), values(1, "1", '"a"')))
    shape, new, old = event
    assert (shape.old_is_full, shape.key, shape.unchanged_toast) == (True, ("id",), ())
    assert (new, old) == ([b"1", b"2", b'"b"'], [b"1", b"1", b'"a"'])


def test_with_a_full_old_image_an_unchanged_toast_value_is_copied_from_it() -> None:
    new = ",".join([column("id", 23, "1"), column("price", 1700, "2")])
    event = decode_row(Wal2JsonDecoder(Scope()), row("U", new, values(1, "1", '"long"')))
    assert event[0].new_columns == ("id", "price", "name")
    assert event[0].unchanged_toast == ()
    assert event[1] == [b"1", b"2", b'"long"']


def test_without_one_it_is_absent_and_named_never_null() -> None:
    new = ",".join([column("id", 23, "1"), column("price", 1700, "2")])
    event = decode_row(Wal2JsonDecoder(Scope()), row("U", new, column("id", 23, "1")))
    shape = event[0]
    assert (shape.old_is_full, shape.new_columns, shape.unchanged_toast) == (
        False,
        ("id", "price"),
        ("name",),
    )


def test_a_delete_with_only_its_key_is_partial_and_with_all_columns_full() -> None:
    decoder = Wal2JsonDecoder(Scope())
    key_only = decode_row(decoder, row("D", identity=column("id", 23, "1")))
    whole = decode_row(decoder, row("D", identity=values(1, "1", '"a"')))
    assert (key_only[0].old_is_full, whole[0].old_is_full) == (False, True)


def test_a_delete_whose_identity_is_an_index_wider_than_the_key_is_partial() -> None:
    info = TableInfo(
        "public", "t", ("public", "t"), "r", (("id", 23, True), ("code", 23, True), ("note", 25, False))
    )
    identity = ",".join([column("id", 23, "1"), column("code", 23, "2")])
    event = decode_row(Wal2JsonDecoder(Scope()), row("D", identity=identity), catalog(t=info))
    assert (event[0].old_is_full, event[0].key) == (False, ("id",))


def test_an_update_without_any_identity_is_taken_and_marked_partial() -> None:
    """Case 28."""
    event = decode_row(Wal2JsonDecoder(Scope()), row("U", values(1, "2", '"b"')))
    assert (event[0].old_columns, event[0].old_is_full, event[2]) == ((), False, [])


def test_columns_that_came_since_do_not_make_a_full_old_image_partial() -> None:
    """Case 41: the catalog is newer than the row; an index that identifies rows has no column that may be null."""
    newer = TableInfo("public", "t", ("public", "t"), "r", (*COLUMNS, ("later", 25, False)))
    same = values(1, "2", '"b"')
    event = decode_row(Wal2JsonDecoder(Scope()), row("U", same, same, pk=""), catalog(t=newer))
    assert (event[0].old_is_full, event[0].key) == (True, ())
    gone = decode_row(Wal2JsonDecoder(Scope()), row("D", identity=same, pk=""), catalog(t=newer))
    assert (gone[0].old_is_full, gone[0].key) == (True, ())


def test_a_leaf_partition_is_named_after_its_root() -> None:
    leaf = TableInfo("public", "t", ("sales", "orders"), "r", COLUMNS)
    event = decode_row(Wal2JsonDecoder(Scope()), row("I", values(1, "1", '"a"')), catalog(t=leaf))
    assert (event[0].schema, event[0].table, event[0].partition) == ("sales", "orders", "t")


def test_what_is_excluded_or_a_materialized_view_gives_no_event() -> None:
    line = row("I", values(1, "1", '"a"'))
    assert decode(Wal2JsonDecoder(Scope(exclude=["public.t*"])), line) is None
    view = TableInfo("public", "t", ("public", "t"), "m", COLUMNS)
    assert decode(Wal2JsonDecoder(Scope()), line, catalog(t=view)) is None


def test_a_table_without_columns_has_empty_images() -> None:
    line = b'{"action":"I",' + HEAD + b',"columns":[],"pk":[]}'
    event = decode_row(Wal2JsonDecoder(Scope()), line)
    assert (event[0].new_columns, event[1]) == ((), [])


def test_truncates_messages_and_notices_are_events() -> None:
    decoder = Wal2JsonDecoder(Scope())
    assert decode(decoder, b'{"action":"T",' + HEAD + b"}") == Truncate("public", "t", "")
    message = b'{"action":"M","xid":738,"lsn":"0/10","transactional":true,"prefix":"cdc_audit.context","content":"{}"}'
    assert decode(decoder, message) == Message(True, "cdc_audit.context", "{}", 16)
    notice = 'no tuple identifier for UPDATE in table "public"."t"'
    assert decoder.decode_notice(notice) == Suppressed("UPDATE", "public", "t", "")
    assert decoder.decode_notice("something else") is None


def test_bytes_of_another_server_encoding_become_utf_8() -> None:
    line = row("I", values(1, "1", '"caf\\u00e9"')).replace(b"\\u00e9", b"\xe9")
    event = decode_row(Wal2JsonDecoder(Scope(), encoding="latin-1"), line)
    assert event[1][2] == '"café"'.encode()


PRICE_NOT_NULL = TableInfo(
    "public", "t", ("public", "t"), "r", (("id", 23, True), ("price", 1700, True), ("name", 25, False))
)


def test_null_in_a_not_null_column_of_numbers_is_marked_lossy_and_nowhere_else() -> None:
    """Case 46: NaN and infinities arrive as null."""
    decoder = Wal2JsonDecoder(Scope())
    known = catalog(t=PRICE_NOT_NULL)
    decode(decoder, BEGIN)
    shapes = [
        decode_row(decoder, row("I", values(1, price, name)), known)[0]
        for price, name in (("1", "null"), ("null", '"a"'), ("2", '"b"'), ("null", "null"))
    ]
    assert [shape.is_lossy for shape in shapes] == [False, True, False, True]
    assert shapes[0] == shapes[2]
    assert shapes[1] is shapes[3]
    old = decode_row(decoder, row("U", values(1, "2", '"b"'), values(1, "null", '"a"')), known)
    assert old[0].is_lossy
    nullable = decode_row(Wal2JsonDecoder(Scope()), row("I", values(1, "null", '"a"')))
    assert not nullable[0].is_lossy


def test_before_a_row_is_marked_lossy_its_table_is_looked_up_again_once_a_transaction() -> None:
    decoder = Wal2JsonDecoder(Scope())
    line = row("I", values(1, "null", '"a"'))
    decode(decoder, BEGIN)
    assert decode_row(decoder, line, catalog(t=PRICE_NOT_NULL))[0].is_lossy
    assert decoder.decode(line)
    decoder.decode(BEGIN.replace(b'"B"', b'"C"'))
    decoder.decode(BEGIN)
    with pytest.raises(UnknownTypeError) as asked:
        decoder.decode(line)
    assert asked.value.tables == {("public", "t")}
    decoder.learn(catalog())  # the constraint was dropped meanwhile
    assert not cast("Row", decoder.decode(line))[0].is_lossy


def test_with_numbers_as_strings_nothing_is_lost_and_nothing_marked() -> None:
    """Case 46 with wal2json 2.6, which has the option numeric-data-types-as-string."""
    decoder = Wal2JsonDecoder(Scope(), quoted_numbers=True)
    event = decode_row(decoder, row("I", values(1, '"NaN"', "null")), catalog(t=PRICE_NOT_NULL))
    assert (event[0].is_lossy, event[1][1]) == (False, b'"NaN"')


def test_bytes_of_no_known_encoding_are_taken_for_latin_1_one_by_one() -> None:
    """Case 64: a SQL_ASCII database."""
    line = row("I", values(1, "1", '"é?"')).replace(b"?", b"\xe9")
    event = decode_row(Wal2JsonDecoder(Scope()), line)
    assert event[1][2] == '"éé"'.encode()


def test_a_message_that_is_not_text_is_not_taken_for_json() -> None:
    """Case 72: pg_logical_emit_message takes bytea, too."""
    line = b'{"action":"M","xid":7,"lsn":"0/10","transactional":true,"prefix":"cdc_audit.context","content":"{}\xe9"}'
    assert decode(Wal2JsonDecoder(Scope()), line) == Message(True, "cdc_audit.context", "\ufffd{}é", 16)


@pytest.mark.parametrize(
    "line",
    [
        b'{"action":"X","xid":1}',
        b'{"action":"I","schema":"public"',
        row("I", values(1, "1", '"a"'))[:-2],
        row("I", values(1, "[1]", '"a"')),
        b'{"action":"B","xid":1}',
        b"[]",
        b"",
    ],
)
def test_what_wal2json_never_sends_is_a_clear_error_without_values(line: bytes) -> None:
    with pytest.raises(StreamError, match="wal2json") as caught:
        decode(Wal2JsonDecoder(Scope()), line)
    assert "19:19:02" not in str(caught.value)
