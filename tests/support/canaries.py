"""Random words sent along many paths, and the search for them in whatever was written.

canaries = Canaries()
source.execute("insert into users (password) values (%s)", (canaries.secret("column password"),))
canaries.look("daemon log", log.encode())
print(canaries.table())
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psycopg

_FORMS: tuple[Callable[[str], bytes], ...] = (
    str.encode,
    lambda word: word.encode().hex().encode(),
    lambda word: word.encode().hex().upper().encode(),
    lambda word: word.encode("utf-16-le"),
    lambda word: word.encode("utf-16-be"),
)
_FILES = """
with recursive entries (path, is_folder) as (
    select name, (pg_stat_file(name, true)).isdir from pg_ls_dir('.') as name
    union all
    select path || '/' || name, (pg_stat_file(path || '/' || name, true)).isdir
    from entries cross join lateral pg_ls_dir(path, true, false) as name
    where is_folder
)
select path from entries where not is_folder order by path
"""


class Sighting(NamedTuple):
    """A word's path, and where the word was seen."""

    path: str
    place: str


class Canaries:
    """The words by path. ``secret`` ones must be seen nowhere, ``plain`` ones are ordinary values of the trail."""

    def __init__(self) -> None:
        self._mark = f"canary{secrets.token_hex(6)}"
        self.secrets: dict[str, str] = {}
        self.plain_values: dict[str, str] = {}
        self.places: list[str] = []
        self.seen: set[Sighting] = set()

    def secret(self, path: str) -> str:
        """The secret word of a path."""
        return self.secrets.setdefault(path, self._mark + secrets.token_hex(6))

    def number(self, path: str) -> int:
        """The secret of a path that takes only numbers."""
        return int(self.secrets.setdefault(path, str(10**17 + secrets.randbelow(10**17))))

    def plain(self, path: str) -> str:
        """The ordinary word of a path."""
        return self.plain_values.setdefault(path, self._mark + secrets.token_hex(6))

    def look(self, place: str, data: bytes | str) -> None:
        """Search text or bytes for all words: as they are, in hexadecimal, in UTF-16."""
        if place not in self.places:
            self.places.append(place)
        data = data.encode() if isinstance(data, str) else data
        words = {**self.secrets, **self.plain_values}
        for form in _FORMS:
            is_marked = form(self._mark) in data
            for path, word in words.items():
                if (is_marked or word.isdigit()) and form(word) in data:
                    self.seen.add(Sighting(path, place))

    def leaks(self) -> list[Sighting]:
        """Where secret words were seen."""
        return sorted(sighting for sighting in self.seen if sighting.path in self.secrets)

    def places_of(self, path: str) -> set[str]:
        """Where a path's word was seen."""
        return {sighting.place for sighting in self.seen if sighting.path == path}

    def table(self) -> str:
        """Paths by places: ``.`` is not seen, ``seen`` is an ordinary value, ``LEAK`` a secret."""
        width = max(map(len, [*self.secrets, *self.plain_values]))
        lines = [" " * width + "  " + "  ".join(self.places)]
        for path in [*self.secrets, *self.plain_values]:
            word = "LEAK" if path in self.secrets else "seen"
            cells = [word if place in self.places_of(path) else "." for place in self.places]
            lines.append(
                f"{path:{width}}  "
                + "  ".join(f"{cell:{len(place)}}" for cell, place in zip(cells, self.places, strict=True))
            )
        return "\n".join(line.rstrip() for line in lines)


def files(dsn: str) -> Iterator[tuple[str, bytes]]:
    """All files of a server's data directory, with their paths in it, after a checkpoint. ``dsn`` is a superuser's."""
    with psycopg.connect(dsn, autocommit=True) as server:
        server.execute("checkpoint")
        for (path,) in server.execute(_FILES).fetchall():
            read = "select pg_read_binary_file(%s, 0, 1000000000, true)"
            row = server.execute(read, (path,), binary=True).fetchone()
            if row and row[0] is not None:
                yield path, row[0]
