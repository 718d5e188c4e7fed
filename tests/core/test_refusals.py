"""What makes two actions the same one, where doing it again would lead nowhere."""

from __future__ import annotations

import pytest

from snaprep.core.action import Action, Adopt, GiveUp, Hold, Reopen, Roles, SetAside, TakeOver
from snaprep.core.refusals import about

ROLES = Roles(source="a", target="b", generation=1)


@pytest.mark.parametrize(
    ("action", "same"),
    [
        (Adopt(roles=ROLES), (Adopt, ROLES)),
        (GiveUp(roles=ROLES, free_bytes=1, floor_bytes=2), (GiveUp, ROLES)),
        (SetAside(roles=ROLES, image="b/db", to="b/db.old", why="x"), (SetAside, "b", "b/db")),
        (Reopen(host="a"), (Reopen, "a")),
        (TakeOver(target="b", generation=2, from_state="replica"), (TakeOver, "b")),
        (Hold(reason="held", pace_s=1), ()),
    ],
)
def test_an_action_is_about_what_it_changes(action: Action, same: tuple[object, ...]) -> None:
    """Figures that differ from turn to turn do not make it another action; rounds and waiting may repeat."""
    assert about(action) == same
