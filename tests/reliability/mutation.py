"""Seeded damage to valid files: to their bytes, to values of JSON, and to the content of archives."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

Mutate = Callable[[Random, bytes], bytes]

_INTEGERS = (
    0,
    1,
    2,
    127,
    128,
    255,
    256,
    2**15 - 1,
    2**16 - 1,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**64 - 1,
)
_HEADER = 48  # bytes: about half of all edits are this near to the start, where headers are
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 3.5, -0.0, 255, 65536, 2**31, 2**63, -(2**64), 10**400, 1e308, -1e-320),
    *(float("nan"), float("inf"), "", " ", "0", "-1", "1e999", "*", "\0", "a\0b.png", "\ud800", "患者", "a" * 5000),
    *("..", "../../../etc/passwd", "/etc/passwd", "con", "a/b", "a\\b", "$(id)", "@x", "${1+1}", "\n", "0" * 5000),
    *([], {}, [[]], [{}], {"": None}, [0] * 7, [[1, 2], [3]], {"0": "a"}, {"size": [10**9, 10**9], "counts": "0" * 99}),
)


def mutate_bytes(rng: Random, data: bytes, *, first: int = 0) -> bytes:
    """Make one to eight edits of bytes from ``first`` on."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        if len(content) <= first:
            content += rng.randbytes(8)
        rng.choice(_EDITS)(rng, content, _place(rng, content, first))
    return bytes(content)


def mutate_json(rng: Random, data: bytes) -> bytes:
    """Put other values into a JSON document, remove or duplicate some; one in six times edit its bytes."""
    if rng.random() < 1 / 6:
        return mutate_bytes(rng, data)
    document = [json.loads(data)]
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes = list(_nodes(document))
        holder, key = rng.choice(nodes)
        edit = rng.randrange(6)
        if edit < 3 or holder is document:
            holder[key] = _value(rng)
        elif edit == 3:
            del holder[key]
        elif edit == 4:
            other, place = rng.choice(nodes)
            holder[key] = json.loads(json.dumps(other[place]))
        elif isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[str(_value(rng))[:6000]] = holder.pop(key)
    return json.dumps(document[0]).encode()


def mutate_lines(rng: Random, data: bytes) -> bytes:
    """Mutate one line of a file of JSON lines."""
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    lines[number] = mutate_json(rng, lines[number])
    return b"\n".join(lines)


def mutate_zip(rng: Random, data: bytes) -> bytes:
    """Mutate, drop, rename or double members of an archive, whose checksums are right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    number = rng.randrange(len(members))
    name, content = members[number]
    edit = rng.randrange(10)
    if edit == 0:
        del members[number]
    elif edit == 1:
        members[number] = (rng.choice(("../" + name, "/" + name, name[:-1], "", rng.choice(members)[0])), content)
    elif edit == 2:
        members.append((name, mutate_bytes(rng, content)))
    else:
        members[number] = (name, mutate_bytes(rng, content))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return packed.getvalue()


def mutate_gzip(rng: Random, data: bytes) -> bytes:
    """Mutate what a gzip file holds."""
    return gzip.compress(mutate_bytes(rng, gzip.decompress(data)), 1, mtime=0)


def mutate_png(rng: Random, data: bytes) -> bytes:
    """Mutate the content of one chunk of a PNG, whose checksums are right again."""
    chunks, place = [], 8
    while place < len(data):
        (size,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + size]))
        place += 12 + size
    number = rng.randrange(len(chunks))
    kind, content = chunks[number]
    if kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(mutate_bytes(rng, zlib.decompress(content)), 1)
    else:
        content = mutate_bytes(rng, content)
    chunks[number] = (kind, content)
    packed = [struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks]
    return data[:8] + b"".join(packed)


def sometimes(mutate: Mutate) -> Mutate:
    """Mutate by structure three times in four, and the plain bytes otherwise."""
    return partial(_sometimes, mutate)


def _sometimes(mutate: Mutate, rng: Random, data: bytes) -> bytes:
    return mutate(rng, data) if rng.random() < 0.75 else mutate_bytes(rng, data)


def _place(rng: Random, content: bytearray, first: int) -> int:
    if rng.random() < 0.5:
        return rng.randrange(first, len(content))
    return min(first + int(rng.expovariate(1 / _HEADER)), len(content) - 1)


def _flip(rng: Random, content: bytearray, place: int) -> None:
    content[place] ^= 1 << rng.randrange(8)


def _set(rng: Random, content: bytearray, place: int) -> None:
    content[place] = rng.randrange(256)


def _integer(rng: Random, content: bytearray, place: int) -> None:
    size = rng.choice((1, 2, 4, 8))
    value = rng.choice(_INTEGERS) % 256**size
    content[place : place + size] = value.to_bytes(size, rng.choice(("little", "big")))


def _cut(rng: Random, content: bytearray, place: int) -> None:
    del content[place:]


def _remove(rng: Random, content: bytearray, place: int) -> None:
    del content[place : place + rng.choice((1, 2, 4, 8, 64))]


def _double(rng: Random, content: bytearray, place: int) -> None:
    part = content[place : place + rng.choice((1, 4, 16, 64))]
    content[place:place] = part * rng.choice((1, 1, 20))


def _insert(rng: Random, content: bytearray, place: int) -> None:
    content[place:place] = rng.randbytes(rng.choice((1, 2, 4, 16)))


def _zeros(rng: Random, content: bytearray, place: int) -> None:
    size = min(rng.choice((2, 8, 64)), len(content) - place)
    content[place : place + size] = bytes(size)


_EDITS = (_flip, _flip, _set, _integer, _integer, _integer, _cut, _remove, _double, _insert, _zeros)


def _nodes(value: Any) -> Any:
    """Yield every (container, key) below a value."""
    places = enumerate(value) if isinstance(value, list) else value.items() if isinstance(value, dict) else ()
    for key, item in list(places):
        yield value, key
        yield from _nodes(item)


def _value(rng: Random) -> Any:
    if rng.random() < 0.05:
        depth: Any = []
        for _ in range(rng.choice((3, 250))):  # three nested levels can still be written
            depth = [depth]
        return depth
    return json.loads(json.dumps(rng.choice(_VALUES)))  # a copy
