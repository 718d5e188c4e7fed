"""`snaprep plan`: what a rebuild would do, by the same decisions, with sizes and rates measured now."""

from __future__ import annotations

from snaprep.control import Sink
from snaprep.core.model import Policy
from snaprep.core.report import Plan
from snaprep.core.spec import Pair


def plan(pair: Pair, policy: Policy, sink: Sink) -> Plan:
    raise NotImplementedError(pair, policy, sink)
