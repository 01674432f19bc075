"""Shards: parts of a list of work that separate jobs do, which together are the whole."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar


class _Sliced(Protocol):
    def __getitem__(self, part: slice, /) -> Any: ...


Things = TypeVar("Things", bound=_Sliced)


class ShardError(ValueError):
    """A shard is not written as i/n; says how."""


@dataclass(frozen=True)
class Shard:
    """The i-th of n parts, counted from 1."""

    i: int = 1
    n: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8` as the second of eight parts; nothing as the whole. Raises ShardError for anything else."""
        if not text:
            return cls()
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        i, n = map(int, found.groups()) if found else (0, 0)
        if not 1 <= i <= n:
            raise ShardError(f"--shard {text}: is no part of a whole; write i/n, the first of eight parts as 1/8")
        return cls(i, n)

    @property
    def is_whole(self) -> bool:
        return self.n == 1

    def of(self, things: Things) -> Things:
        """The part of a list or a table's rows: every n-th, so that what lies side by side is shared out."""
        part: Things = things[self.i - 1 :: self.n]
        return part
