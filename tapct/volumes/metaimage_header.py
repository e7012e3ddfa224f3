"""The header of a MetaImage: lines of `key = value`, of which the last says where the voxels are."""

import difflib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tapct._utils.content import HEAD, what_it_is
from tapct.errors import VolumeError

_DATA = "ElementDataFile"
_LONGEST = 2**20
_TRUE, _FALSE = ("true", "t", "1"), ("false", "f", "0")
_PATTERN = re.compile(rb"[^%]*%0?\d{0,2}[diu][^%]*")
_MOST_FILES = 100_000
_KEYS = {
    *("ObjectType", "ObjectSubType", "FileFormatVersion", "Comment", "Name", "ID", "ParentID", "AcquisitionDate"),
    *("CompressedData", "CompressedDataSize", "BinaryData", "ElementByteOrderMSB", "BinaryDataByteOrderMSB", "Color"),
    *("Position", "Origin", "Offset", "TransformMatrix", "Rotation", "Orientation", "CenterOfRotation", "NDims"),
    *("DistanceUnits", "AnatomicalOrientation", "ElementSpacing", "DimSize", "HeaderSize", "Modality", "SequenceID"),
    *("ImagePosition", "ElementMin", "ElementMax", "ElementNumberOfChannels", "ElementSize", "ElementNBits"),
    *("ElementToIntensityFunctionSlope", "ElementToIntensityFunctionOffset", "ElementType", _DATA),
}
"""What MetaIO knows; other keys are a writer's own, and mean nothing to readers."""

# MetaIO's numbers are of one size on every machine; its "long" has four bytes.
_TYPES = {
    **{"MET_CHAR": "i1", "MET_ASCII_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2"},
    **{"MET_INT": "i4", "MET_UINT": "u4", "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8"},
    **{"MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8"},
}


def unreadable(path: Path, reason: str) -> VolumeError:
    """Returns the error of a file that is not a valid MetaImage; `reason` says what is wrong, and how to fix it."""
    return VolumeError(f"{path} cannot be read as MetaImage ({reason}).")


@dataclass(frozen=True)
class MetaImageHeader:
    """A header as it is in the file.

    Attributes:
        path: The file.
        fields: Its keys, each with its values, of which there should be one.
        data: The value of ElementDataFile, and the lines behind it where that is LIST. They are bytes: names of
            files have whatever encoding the machine had that wrote them.
        end: First byte behind the header.
    """

    path: Path
    fields: dict[str, list[str]]
    data: list[bytes]
    end: int

    @classmethod
    def read(cls, path: Path) -> "MetaImageHeader":
        """Reads the header of a `.mha` or `.mhd` file.

        Raises:
            VolumeError: It is none, or ends before the voxels are named.
        """
        fields: dict[str, list[str]] = {}
        with path.open("rb") as stream:
            head = stream.read(HEAD)
            stream.seek(3 if head.startswith(b"\xef\xbb\xbf") else 0)  # the byte order mark of Windows' editors
            for key, value in _lines(path, stream):
                fields.setdefault(key, []).append(value.decode("utf-8", errors="replace"))
                if key == _DATA:
                    end = stream.tell()
                    listed = [line.strip() for line in stream] if _is_list(value) else []
                    return cls(path, fields, [value, *filter(None, listed)], end)
        reason = what_it_is(head) or f"it has no line of {_DATA}, with which every header ends: fetch it again"
        raise unreadable(path, reason)

    def text(self, *keys: str) -> str:
        """Returns what these keys, which mean the same, say; "" where none is there.

        Raises:
            VolumeError: They say two things.
        """
        said = [(key, value) for key in keys for value in self.fields.get(key, []) if value]
        for key, value in said:
            if value != said[0][1] and not _same(value, said[0][1]):
                raise self.contradiction(f"{said[0][0]} is {said[0][1]}", f"{key} is {value}")
        if not said:
            self._check_spelling(keys)
        return said[0][1] if said else ""

    def _check_spelling(self, keys: tuple[str, ...]) -> None:
        """Refuses a key that is nearly one of these: a header of TransfomMatrix would be read as one that has none."""
        for key in set(self.fields) - _KEYS:
            if close := difflib.get_close_matches(key, keys, n=1, cutoff=0.8):
                raise unreadable(self.path, f"it has a key '{key}', which MetaImage does not know; write {close[0]}")

    def flag(self, *keys: str, default: bool = False) -> bool:
        """Returns whether the value of one of these keys is True, as MetaIO reads it."""
        value = self.text(*keys).lower()
        if value not in ("", *_TRUE, *_FALSE):
            raise unreadable(self.path, f"{keys[0]} is '{value}', and must be True or False")
        return value in _TRUE if value else default

    def numbers(self, *keys: str, count: int, default: list[float] | None = None) -> np.ndarray:
        """Returns the numbers of one of these keys, float64.

        Raises:
            VolumeError: They are not `count` finite numbers, or there are none and no default.
        """
        value = self.text(*keys)
        if not value and default is not None:
            return np.array(default)
        try:
            found = np.array([float(word) for word in value.split()])
        except ValueError:
            found = np.array([])
        if len(found) != count or not np.isfinite(found).all():
            raise unreadable(self.path, f"{keys[0]} is '{value}', and must be {count} number{'s' * (count > 1)}")
        return found

    def contradiction(self, one: str, other: str) -> VolumeError:
        """Returns the error of two statements that cannot both be true."""
        return unreadable(
            self.path,
            f"its header contradicts itself: {one}, but {other}; correct the one that is wrong, or convert the scan "
            "again",
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along each axis, the fastest first."""
        (axes,) = self.numbers("NDims", count=1)
        if axes not in range(1, 11):
            raise unreadable(self.path, f"NDims is {self.text('NDims')}")
        sizes = self.numbers("DimSize", count=int(axes))
        if (sizes != np.round(sizes)).any():
            raise unreadable(self.path, f"DimSize is {self.text('DimSize')}, and must be whole numbers")
        return tuple(int(size) for size in sizes)

    @property
    def dtype(self) -> np.dtype:
        """The stored numbers."""
        kind = self.text("ElementType")
        if kind not in _TYPES:
            raise unreadable(self.path, f"ElementType is '{kind}', and must be one of {', '.join(_TYPES)}")
        big_endian = self.flag("BinaryDataByteOrderMSB", "ElementByteOrderMSB")
        return np.dtype((">" if big_endian else "<") + _TYPES[kind])

    @property
    def files(self) -> list[Path]:
        """The files of voxels, in the order of the slices; none where they follow the header (LOCAL)."""
        value, *listed = self.data
        if value.upper() == b"LOCAL":
            return []
        if _is_list(value):
            names = self._check_list(listed)
        elif b"%" in value:
            names = self._numbered(value)
        else:
            names = [value]
        return [_next_to(self.path, name) for name in names]

    def _check_list(self, names: list[bytes]) -> list[bytes]:
        """A LIST may say how many axes a file has; else it has one fewer than the scan."""
        axes = self.text(_DATA).removeprefix("LIST").strip()
        whole = len(self.shape)
        in_one = int(axes) if axes in map(str, range(1, whole + 1)) else whole - 1
        if len(names) != math.prod(self.shape[in_one:]):
            raise self.contradiction(f"it lists {len(names)} files", f"DimSize is {self.text('DimSize')}")
        return names

    def _numbered(self, value: bytes) -> list[bytes]:
        """The names of a pattern such as `slice%03d.raw 1 20 1`: first, last and step, which may be left out."""
        pattern, slices = value, self.shape[-1]
        numbers: list[int] = []
        while len(numbers) < 3 and re.fullmatch(rb"\d{1,9}", (parts := pattern.rpartition(b" "))[2]):
            pattern, numbers = parts[0].rstrip(), [int(parts[2]), *numbers]
        if not _PATTERN.fullmatch(pattern) or not 0 < slices <= _MOST_FILES:
            raise unreadable(self.path, f"{_DATA} is '{self.text(_DATA)}', and no pattern such as slice%03d.raw 1 20 1")
        first, *rest = numbers or [1]
        step = rest[1] if len(rest) > 1 else 1
        last = rest[0] if rest else first + slices - 1
        if step == 0 or len(range(first, last + 1, step)) != slices:
            raise self.contradiction(f"{_DATA} is {self.text(_DATA)}", f"DimSize has {slices} slices")
        return [_format(pattern, number) for number in range(first, last + 1, step)]


def _lines(path: Path, stream: BinaryIO) -> Iterator[tuple[str, bytes]]:
    """Yields keys and values; lines without a key, of a text that continues, are passed over."""
    while stream.tell() < _LONGEST and (line := stream.readline(_LONGEST)):
        if separator := re.search(rb"[=:]", line):
            key = line[: separator.start()].strip()
            yield key.decode("utf-8", errors="replace"), line[separator.end() :].strip()
        elif (words := line.split(maxsplit=1)) and words[0].decode("ascii", errors="replace") in _KEYS:
            raise unreadable(path, f"the line of {words[0].decode()} has no '=' behind it; write it")


def _is_list(value: bytes) -> bool:
    return value.split()[:1] == [b"LIST"]


def _same(one: str, other: str) -> bool:
    """Whether two values say the same, but for the number of digits."""
    try:
        left, right = (np.array([float(word) for word in text.split()]) for text in (one, other))
    except ValueError:
        return one.lower() == other.lower()
    return left.shape == right.shape and np.allclose(left, right, rtol=1e-4, atol=1e-3)


def _format(pattern: bytes, number: int) -> bytes:
    """A pattern as of C's printf, with its number in it."""
    return re.sub(rb"%(0?\d*)[diu]", lambda found: (b"%" + found[1] + b"d") % number, pattern)


def _next_to(header: Path, name: bytes) -> Path:
    """The file of this name next to a header, whether it is in this machine's encoding or in another's."""
    readings = [os.fsdecode(name)]
    for encoding in ("utf-8", "cp1252"):
        try:
            text = name.decode(encoding)
        except UnicodeDecodeError:
            continue
        readings += [text, os.fsdecode(text.encode())]  # the second: a disk of UTF-8 names under the C locale
    places = [header.parent / reading for reading in readings]
    return next((place for place in places if place.is_file()), places[0])
