"""Shards of a list are its parts: each thing is in one of them."""

import pandas as pd
import pytest

from mmmil.processes.shards import Shard, ShardError


@pytest.mark.parametrize("n", [1, 3, 8, 20])
def test_the_shards_are_the_whole_and_nothing_twice(n):
    parts = [Shard.parse(f"{i}/{n}").of(list(range(10))) for i in range(1, n + 1)]
    assert sorted(thing for part in parts for thing in part) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_rows_of_a_table():
    table = pd.DataFrame({"a": range(5)}, index=list("vwxyz"))
    assert Shard(2, 2).of(table).index.tolist() == ["w", "y"]


def test_nothing_said_is_the_whole():
    assert Shard.parse("").is_whole and Shard.parse("1/1").is_whole and not Shard.parse(" 2/3 ").is_whole


@pytest.mark.parametrize("text", ["2", "0/3", "4/3", "1/0", "a/b", "1/2/3", "-1/2"])
def test_what_is_no_part_is_told(text):
    with pytest.raises(ShardError, match="write i/n"):
        Shard.parse(text)
