"""Who holds a lock of a host."""

from __future__ import annotations

import pytest

from snaprep.agent import locks
from snaprep.core.errors import Locked
from snaprep.core.model import RunInfo


@pytest.mark.parametrize(
    ("run", "said"), [("r1", "the pair is held: rebuild by olga, run r1"), ("", "the pair is held: rebuild by olga")]
)
def test_the_second_one_reads_who_holds_it(run: str, said: str) -> None:
    """With the run's name when there is one: a guard belongs to none. When it is let go, nobody holds it."""
    info = RunInfo(run=run, verb="rebuild", operator="olga", pid=1)
    lock = locks.Lock("pair", "test-locks", info)
    try:
        assert locks.holder("pair", "test-locks") == info
        with pytest.raises(Locked) as refused:
            locks.Lock("pair", "test-locks", info)
        assert refused.value.info.what == said
    finally:
        lock.release()
    assert locks.holder("pair", "test-locks") is None
    lock.path.unlink()
