"""What a plan says of a step, as its table shows it."""

from __future__ import annotations

from snaprep.core.action import Hold
from snaprep.core.preview import PlannedStep
from snaprep.verbs import plan
from snaprep.verbs.measured import Seen

SEEN = Seen(
    link_bytes_per_s=None,
    log_bytes_per_s=None,
    dirty_bytes_per_s=None,
    full_bytes=None,
    increment_bytes=None,
    has_base=False,
    copies=False,
)


def test_a_step_that_waits_says_for_what() -> None:
    """Where the run would come to wait stands the reason; how long that takes nobody knows."""
    shown = plan._shown(PlannedStep(action=Hold(reason="waiting: a transaction is open", pace_s=1.0)), SEEN)
    assert shown is not None
    assert (shown.name, shown.what, shown.time_ms) == ("hold", "waiting: a transaction is open", None)
