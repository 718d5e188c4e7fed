"""Which point an increment starts from: by GUID, along origins, never by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snaprep.core import lineage
from snaprep.core.lineage import common_base, common_snapshot, history
from snaprep.core.model import HostFacts
from snaprep.core.volume import Image, ImageRole, Point, VolumeFacts
from tests.core.facts import empty, image, point


def volume(*images: Image) -> VolumeFacts:
    of: HostFacts = empty("x", *images)
    assert of.volume is not None
    return of.volume


LIVE = image("a/db", ImageRole.LIVE, point(1), point(2), point(3))


def test_the_newest_point_that_both_hold_is_the_base() -> None:
    """Point 3 never arrived, so 2 is the base, and the receiving image ends there."""
    base = common_base(volume(LIVE), LIVE, volume(image("b/db.recv", ImageRole.RECV, point(1), point(2))), "b/db.recv")
    assert base is not None
    assert (base.point.guid, base.continues) == (2, True)


def test_a_name_proves_nothing() -> None:
    """An equal name with another GUID is no common point; another name with the same GUID is."""
    imposter = image("b/db.recv", ImageRole.RECV, point(77, name="snaprep-p-r-003"))
    assert common_base(volume(LIVE), LIVE, volume(imposter), "b/db.recv") is None
    renamed = image("b/db.recv", ImageRole.RECV, point(3, name="other"))
    base = common_base(volume(LIVE), LIVE, volume(renamed), "b/db.recv")
    assert base is not None
    assert base.target_point == "other"


def test_every_part_must_agree() -> None:
    """The root's GUID alone is not enough when the image has children."""
    sent = image("a/db", ImageRole.LIVE, Point("s", (1, 10), 1))
    there = image("b/db.recv", ImageRole.RECV, Point("s", (1, 11), 1))
    assert common_base(volume(sent), sent, volume(there), "b/db.recv") is None


def test_a_receiving_image_that_went_on_is_not_continued() -> None:
    """The base lies in it, but it ends elsewhere: a new clone of the base receives."""
    recv = image("b/db.recv", ImageRole.RECV, point(2), point(9))
    base = common_base(volume(LIVE), LIVE, volume(recv), "b/db.recv")
    assert base is not None
    assert (base.point.guid, base.target_image, base.continues) == (2, "b/db.recv", False)


def test_a_point_in_a_started_image_serves_through_a_clone() -> None:
    """Fail-back: the old primary holds the base in its own, diverged image."""
    tail = image("b/db.isolated-g1", ImageRole.ISOLATED, point(2), point(8))
    base = common_base(volume(LIVE), LIVE, volume(tail), "b/db.recv")
    assert base is not None
    assert (base.target_image, base.continues) == ("b/db.isolated-g1", False)


def test_history_goes_along_origins_up_to_each_fork() -> None:
    """A clone's history is its own points, then its origin's up to the fork, and no further."""
    grand = image("b/db.old", ImageRole.ISOLATED, point(1), point(2), point(6))
    recv = image("b/db.recv", ImageRole.RECV, point(3), point(4), point(5), origin="b/db.old", origin_guid=2)
    live = image("b/db", ImageRole.LIVE, point(7), origin="b/db.recv", origin_guid=4)
    assert [a.point.guid for a in history(volume(grand, recv, live), live)] == [7, 4, 3, 2, 1]


def test_a_bookmark_is_a_base_by_its_age() -> None:
    """Of what is left of the source's points the newest that the target holds is the base, a bookmark or a snapshot."""
    left = replace(point(2, held=False), bookmark=True)
    there = volume(image("b/db.recv", ImageRole.RECV, point(1), point(2)))
    sent = image("a/db", ImageRole.LIVE, point(1), point(3), bookmarks=(left,))
    base = common_base(volume(sent), sent, there, "b/db.recv")
    assert base is not None
    assert (base.source_name, base.continues) == (f"a/db#{left.name}", True)
    older = replace(left, guids=(1,), createtxg=1)
    sent = image("a/db", ImageRole.LIVE, point(2), bookmarks=(older,))
    base = common_base(volume(sent), sent, there, "b/db.recv")
    assert base is not None
    assert base.source_name == f"a/db@{point(2).name}"


def test_a_bookmark_is_no_common_snapshot() -> None:
    """What can be cloned on both sides is older than the base, where the source has only its bookmark left."""
    left = replace(point(2, held=False), bookmark=True)
    there = volume(image("b/db.recv", ImageRole.RECV, point(1), point(2)))
    sent = image("a/db", ImageRole.LIVE, point(1), bookmarks=(left,))
    base = common_snapshot(volume(sent), sent, there, "b/db.recv")
    assert base is not None
    assert (base.source_name, base.target_point, base.continues) == (f"a/db@{point(1).name}", point(1).name, False)
    bare = replace(sent, points=())
    assert common_snapshot(volume(bare), bare, there, "b/db.recv") is None


def test_a_chain_that_leads_nowhere_ends() -> None:
    """An origin that is not there, a fork that is gone, and a circle all end the history."""
    lost = image("b/db", ImageRole.LIVE, point(7), origin="b/none", origin_guid=1)
    assert [a.point.guid for a in history(volume(lost), lost)] == [7]
    forked = image("b/db", ImageRole.LIVE, point(7), origin="b/db.recv", origin_guid=9)
    recv = image("b/db.recv", ImageRole.RECV, point(1), origin="b/db", origin_guid=7)
    assert [a.point.guid for a in history(volume(forked, recv), forked)] == [7]


NEW = frozenset({"large_blocks", "compressed", "embedded", "zstd"})


@pytest.mark.parametrize(
    ("source", "target", "flags"),
    [
        (NEW, NEW, ("-L", "-c", "-e")),
        (NEW, frozenset[str](), ()),
        (NEW | {"zstd_active"}, NEW - {"zstd"}, ("-L", "-e")),
        (NEW - {"large_blocks"}, NEW, ("-c", "-e")),
    ],
)
def test_flags_are_what_both_ends_can(source: frozenset[str], target: frozenset[str], flags: tuple[str, ...]) -> None:
    """No flag that the target's pool cannot store, and no compressed zstd blocks to a pool without zstd."""
    first, second = (replace(volume(), caps=caps) for caps in (source, target))
    assert lineage.send_flags(first, image("a/db", ImageRole.LIVE), second, None) == flags


def test_what_is_encrypted_stays_so() -> None:
    """An encrypted image is sent as it lies on disk, and in no other way."""
    capable = replace(volume(), caps=NEW)
    assert lineage.send_flags(capable, image("a/db", ImageRole.LIVE, encrypted=True), capable, None) == ("-w",)


def test_flags_are_kept_for_life() -> None:
    """What goes on from a base is sent like the first stream, whatever both ends have learnt since: by the mark of what
    the base lies in, or of what is sent; less what one of them can do no more. A new full stream chooses anew.
    """
    able, plain = (replace(volume(), caps=caps) for caps in (NEW, frozenset[str]()))
    kept = {lineage.FLAGS: "-c -e"}
    sent, marked = image("a/db", ImageRole.LIVE, point(2)), image("a/db", ImageRole.LIVE, point(2), properties=kept)
    recv = image("b/db.recv", ImageRole.RECV, point(2))
    base = common_base(volume(sent), sent, volume(recv), recv.name)
    assert base is not None
    there, told = (replace(able, images=(i,)) for i in (recv, replace(recv, properties=kept)))
    assert lineage.send_flags(able, marked, there, base) == ("-c", "-e")
    assert lineage.send_flags(able, sent, told, base) == ("-c", "-e")
    other = replace(marked, properties={lineage.FLAGS: "-L"})  # of another pair, on the image that both send
    assert lineage.send_flags(able, other, told, base) == ("-c", "-e")
    assert lineage.send_flags(able, sent, there, base) == ("-L", "-c", "-e")
    assert lineage.send_flags(plain, marked, there, base) == ()
    assert lineage.send_flags(able, marked, told, None) == ("-L", "-c", "-e")
    for flags in ((), ("-L", "-c", "-e")):
        again = replace(sent, properties=lineage.flags_mark(flags))
        assert lineage.send_flags(able, again, there, base) == flags
