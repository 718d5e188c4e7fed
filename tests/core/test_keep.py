"""What is held, released and destroyed: never the newest common point, nothing foreign, nothing isolated."""

from __future__ import annotations

from dataclasses import replace

from snaprep.core.keep import OnHost, given_up, isolated_images, keeping
from snaprep.core.model import HostFacts
from snaprep.core.volume import Image, ImageRole
from tests.core.facts import AB, NO_ROUTE, both, empty, host, image, point, replica, serving, with_live


def test_the_newest_common_point_is_held_and_older_ones_go() -> None:
    """Both sides hold point 3; 1 and 2 are of no more use."""
    source = serving("a", point(1), point(2), point(3, held=False))
    plan = keeping(both(source, replica("b", point(1), point(2), point(3, held=False))), AB, "p")
    assert set(plan.hold) == {
        OnHost("a", "a/db", "snaprep-p-r-003"),
        OnHost("b", "b/db.recv", "snaprep-p-r-003"),
    }
    assert {(p.host, p.point[-1]) for p in plan.destroy_points} == {("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")}
    assert plan.destroy_images == ()


def test_each_direction_keeps_its_own_point() -> None:
    """What b sent back to a is the base of the next fail-back, and stays beside the base of the next rebuild."""
    target = replica("b", point(1), point(3))
    assert target.volume is not None
    live = target.live
    assert live is not None
    served = replace(live, points=(point(4),), origin_guid=1)
    images = (served, *(i for i in target.volume.images if i.name != "b/db"))
    target = replace(target, volume=replace(target.volume, images=images))
    source = serving("a", point(1), point(3))
    assert source.volume is not None
    back = image("a/db.recv", ImageRole.RECV, point(4), origin="a/db", origin_guid=1)
    source = replace(source, volume=replace(source.volume, images=(*source.volume.images, back)))
    plan = keeping(both(source, target), AB, "p")
    assert plan.destroy_points == ()  # 1 is what clones stand on, 3 and 4 are the newest
    assert plan.destroy_images == ()
    assert plan.release == (OnHost("a", "a/db", "snaprep-p-r-001"), OnHost("b", "b/db.recv", "snaprep-p-r-001"))


def test_beside_a_bookmark_the_newest_common_snapshot_stays() -> None:
    """The receiver's copy of what the sender has only the bookmark of, and what both hold as a snapshot."""
    left = replace(point(3, held=False), bookmark=True)
    source = serving("a", point(1), point(2), point(9))
    assert source.live is not None
    source = with_live(source, bookmarks=(left,))
    recv = image("b/db.recv", ImageRole.RECV, point(1), point(2), point(3), point(5))
    plan = keeping(both(source, empty("b", recv)), AB, "p")
    gone = {(p.host, p.point[-1]) for p in plan.destroy_points}
    assert gone == {("a", "1"), ("a", "9"), ("b", "1")}


def test_points_of_others_stay() -> None:
    """A snapshot that somebody else made or holds is never destroyed; our hold on it goes."""
    daily = point(1, name="daily")
    theirs = point(2, held=False, held_by_others=True)
    other_pair = point(3, name="snaprep-q-r-001", held=False)
    plan = keeping(both(serving("a", daily, theirs, other_pair, point(9)), replica("b", point(9))), AB, "p")
    assert plan.destroy_points == ()
    assert plan.release == (OnHost("a", "a/db", "daily"),)


def test_the_newest_point_of_a_receiving_image_stays() -> None:
    """A receiving image ends there; without it the next increment would find it changed."""
    recv = image("b/db.recv", ImageRole.RECV, point(1), point(7))
    plan = keeping(both(serving("a", point(1)), empty("b", recv)), AB, "p")
    assert plan.destroy_points == ()
    assert plan.release == (OnHost("b", "b/db.recv", "snaprep-p-r-007"),)


def test_images_of_no_more_use_go() -> None:
    """A receiving image that was replaced, a scratch clone, and what the serving side once received into."""
    old = image("b/db.old-2", ImageRole.ISOLATED, point(5))
    warm = image("b/db.warm", ImageRole.SCRATCH)
    there = _beside(replica("b", point(1)), old, warm)
    here = _beside(serving("a", point(1)), image("a/db.recv", ImageRole.RECV, point(8)))
    plan = keeping(both(here, there), AB, "p")
    assert plan.destroy_images == (OnHost("a", "a/db.recv"), OnHost("b", "b/db.old-2"), OnHost("b", "b/db.warm"))


def test_images_that_something_needs_stay() -> None:
    """Not ours, in use, an origin, held by others, or the home of a common point: none of these goes."""
    images = (
        image("b/db.old", ImageRole.ISOLATED, point(5), ours=False),
        image("b/db.old-2", ImageRole.ISOLATED, point(6), in_use_by=("1 java",)),
        image("b/db.old-3", ImageRole.ISOLATED, point(7, held_by_others=True)),
        image("b/db.old-4", ImageRole.ISOLATED, point(1)),
        image("b/db.old-5", ImageRole.ISOLATED, point(8)),
        image("b/db.recv", ImageRole.RECV, point(9), origin="b/db.old-5", origin_guid=8),
        image("b/db", ImageRole.FOREIGN),
    )
    plan = keeping(both(serving("a", point(1)), empty("b", *images)), AB, "p")
    assert plan.destroy_images == ()
    assert OnHost("a", "a/db", "snaprep-p-r-001") not in plan.release


def test_isolated_images_go_only_by_name() -> None:
    """Settling leaves an old primary's tail alone, hold and points included; `clean` removes what the user names."""
    tail = image("b/db.isolated-g1", ImageRole.ISOLATED, point(3), point(4, held=False), ours=False)
    old = image("b/db.old", ImageRole.ISOLATED, point(5))
    facts = both(serving("a", point(1)), _beside(replica("b", point(1)), tail, old))
    assert keeping(facts, AB, "p").destroy_images == (OnHost("b", "b/db.old"),)
    assert isolated_images(facts) == (OnHost("b", "b/db.isolated-g1"),)
    named = keeping(facts, AB, "p", isolated=[("b", "b/db.isolated-g1")])
    assert OnHost("b", "b/db.isolated-g1") in named.destroy_images


def test_a_base_in_an_isolated_image_is_held() -> None:
    """After a failover the base may lie only in the old primary's isolated image."""
    tail = image("b/db.isolated-g1", ImageRole.ISOLATED, point(1, held=False), ours=False)
    plan = keeping(both(serving("a", point(1)), empty("b", tail)), AB, "p", isolated=[("b", tail.name)])
    assert plan.hold == (OnHost("b", "b/db.isolated-g1", "snaprep-p-r-001"),)
    assert plan.destroy_images == ()


def test_our_holds_in_an_image_that_goes_are_released_first() -> None:
    """A held point would keep its image, and the next run, and the next, would try again."""
    tail = image("b/db.isolated-g1", ImageRole.ISOLATED, point(7), point(8, held=False), ours=True)
    plan = keeping(both(serving("a", point(1)), empty("b", tail)), AB, "p", isolated=[("b", tail.name)])
    assert plan.destroy_images == (OnHost("b", tail.name),)
    assert plan.release == (OnHost("b", tail.name, "snaprep-p-r-007"),)


def test_nothing_goes_while_a_host_is_silent() -> None:
    """What a silent host holds is not known, so everything may still be needed."""
    silent = host("b", volume=None, error=NO_ROUTE)
    assert keeping(both(serving("a", point(1)), silent), AB, "p") == keeping(both(silent, silent), AB, "p")
    assert isolated_images(both(silent, silent)) == ()


def test_giving_up_frees_what_we_pin_on_the_source_only() -> None:
    """Our points go, except those that clones stand on; what others made only loses our hold; the target keeps all."""
    recv = image("a/db.recv", ImageRole.RECV, point(2), point(3))
    clone = image("a/db.warm", ImageRole.SCRATCH, origin="a/db.recv", origin_guid=2)
    source = _beside(serving("a", point(1), point(4, name="daily"), point(5, name="weekly", held=False)), recv, clone)
    plan = given_up(both(source, replica("b", point(1))), AB, "p")
    assert [p.point[-3:] for p in plan.destroy_points] == ["001", "003"]
    assert [p.point[-3:] for p in plan.release] == ["ily", "002"]


def _beside(of: HostFacts, *more: Image) -> HostFacts:
    assert of.volume is not None
    return replace(of, volume=replace(of.volume, images=(*of.volume.images, *more)))


def test_points_on_another_pairs_database() -> None:
    """On a database that belongs to another pair, and is only followed, our own old points go; theirs stay."""
    theirs = point(2, name="snaprep-other-r-002", held=False, held_by_others=True)
    source = serving("a", point(1), theirs, point(3))
    assert source.live is not None
    assert source.volume is not None
    claimed = replace(source.live, role=ImageRole.FOREIGN, ours=False)
    source = replace(source, volume=replace(source.volume, images=(claimed,)))
    plan = keeping(both(source, replica("b", point(1), point(3))), AB, "p")
    assert [p for p in plan.destroy_points if p.host == "a"] == [OnHost("a", "a/db", "snaprep-p-r-001")]
    assert plan.release == ()
    let_go = given_up(both(source, empty("b")), AB, "p")
    assert {p.point for p in let_go.destroy_points} == {"snaprep-p-r-001", "snaprep-p-r-003"}
