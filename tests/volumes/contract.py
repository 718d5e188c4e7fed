"""What every snapshot storage must do. A new filesystem passes this suite, or it is not one of ours.

The fixtures `pair` (two parts), `plain` (one part) and `make_side` come from conftest and are parametrised over the
filesystems that can be run here.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import pytest

from snaprep.core.errors import SnaprepError, Stale
from snaprep.core.lineage import history
from snaprep.core.volume import ImageRole
from tests.volumes.conftest import Make, seeded
from tests.volumes.harness import Side, feed, ship, stream_bytes
from tests.volumes.private_zfs import in_kernel

Pair = tuple[Side, Side]


def served(pair: Pair) -> Pair:
    """A target that serves what it received."""
    source, target = pair
    point = source.point()
    ship(source, target, point)
    target.present(point.name)
    return pair


def increment(pair: Pair) -> tuple[bytes, list[str]]:
    """The bytes of an increment of one part, and the receive that wants them; the target has the base."""
    source, target = pair
    base = source.point()
    ship(source, target, base)
    source.write("more.dat", 2 << 20)
    head = source.point()
    ((_, argv),) = source.volume.open_send(source.live, head.name, base.guid)
    return stream_bytes(argv), target.volume.open_receive(target.recv, "", origin=None)


def refused(side: Side, argv: list[str], stream: bytes) -> str:
    """The id of the error; what the target has kept of the stream to go on with is thrown away."""
    failed = feed(argv, stream)
    assert failed is not None
    error = side.volume.stream_failed(failed.status, failed.stderr)
    side.volume.discard_partial(side.recv)
    return error.id


class TestStreams:
    def test_full_and_increment_arrive_with_equal_guids(self, pair: Pair) -> None:
        """What is received has the GUIDs of what was sent, in every part, and the same content."""
        source, target = pair
        first = source.point()
        ship(source, target, first)
        source.write("bank.dat", 1 << 20)
        source.write("log2.dat", 1 << 20, part="log")
        second = source.point()
        ship(source, target, second)
        image = target.image(target.recv)
        assert [p.guids for p in image.points] == [first.guids, second.guids]
        assert image.role is ImageRole.RECV
        assert image.ours
        assert image.mounted_at is None
        assert image.read_only
        assert not image.automounts
        target.present(second.name)
        assert target.digest() == source.digest()

    def test_the_parts_of_a_point_are_of_one_moment(self, pair: Pair) -> None:
        """A snapshot of two parts is atomic: an order of writes across them is never seen the other way round."""
        source, _ = pair
        ahead, behind = source.path / "n", source.path / "log" / "n"
        program = (
            "import sys\na, b = (open(p, 'r+b', buffering=0) for p in sys.argv[1:])\nn = 0\n"
            "while True:\n    n += 1\n    w = b'%08d' % n\n    a.seek(0); a.write(w); b.seek(0); b.write(w)\n"
        )
        for path in (ahead, behind):
            path.write_bytes(b"00000000")
        writer = subprocess.Popen(["/usr/bin/env", "python3", "-c", program, str(ahead), str(behind)])
        try:
            while ahead.read_bytes() < b"00000050":
                assert writer.poll() is None
            points = [source.point() for _ in range(5)]
        finally:
            writer.kill()
            writer.wait()
        for point in points:
            scratch = f"{source.live}.scratch"
            at = source.path.with_name("scratch")
            source.volume.clone(source.live, point.name, scratch, mountpoint=str(at), role=ImageRole.SCRATCH)
            seen, seen_behind = int((at / "n").read_bytes()), int((at / "log" / "n").read_bytes())
            assert 0 <= seen - seen_behind <= 1
            assert seen > 0
            source.volume.destroy_image(scratch)

    def test_a_cut_stream_leaves_the_target_as_it_was(self, plain: Pair) -> None:
        """A stream that ends early is refused as damaged, and the whole stream is accepted afterwards."""
        stream, argv = increment(plain)
        target = plain[1]
        before = target.image(target.recv).points
        for size in (0, 100, len(stream) // 2, len(stream) - 300):
            assert refused(target, argv, stream[:size]) == "stream-damaged"
            assert target.image(target.recv).points == before
        assert feed(argv, stream) is None

    @pytest.mark.parametrize("full", [True, False])
    def test_a_stream_that_was_cut_again_and_again_goes_on(self, plain: Pair, full: bool) -> None:  # noqa: FBT001
        """Where streams can go on, each one brings what those cut at random bytes have not: little is sent twice, and
        the whole is what one stream would have brought.
        """
        source, target = plain
        if "resume" not in source.volume.facts().caps:
            return
        base = None if full else source.point()
        if base is not None:
            ship(source, target, base)
        source.write("more.dat", 8 << 20)
        head, guid = source.point(), base.guid if base else None
        ((_, argv),) = source.volume.open_send(source.live, head.name, guid)
        stream = stream_bytes(argv)
        whole, sent = len(stream), 0
        shares = [random.uniform(0.1, 0.8) for _ in range(4)]  # noqa: S311 (dice)
        print(f"cut after these shares of each stream: {shares}")  # noqa: T201 - for the report of a failure
        for share in shares:
            receive = target.volume.open_receive(target.recv, "", origin=None, base_guid=guid, resumes=sent > 0)
            cut = stream[: int(share * len(stream))]
            assert feed(receive, cut) is not None
            sent += len(cut)
            partial = target.image(target.recv).partial
            assert partial is not None
            assert (partial.head_guid, partial.base_guid) == (head.guid, guid)
            ((_, argv),) = source.volume.open_send(source.live, head.name, guid, token=partial.token)
            stream = stream_bytes(argv)
        receive = target.volume.open_receive(target.recv, "", origin=None, base_guid=guid, resumes=True)
        assert feed(receive, stream) is None
        assert sent + len(stream) < 1.1 * whole
        target.volume.received(target.recv, head.name, head.guids)
        target.present(head.name)
        assert target.digest() == source.digest()

    def test_a_flipped_bit_leaves_the_target_as_it_was(self, plain: Pair) -> None:
        """A stream with one changed bit is refused as damaged, wherever the bit is."""
        stream, argv = increment(plain)
        target = plain[1]
        before = target.image(target.recv).points
        for place in (100, len(stream) // 3, len(stream) - 290):  # the last is in the sum at the end
            changed = bytearray(stream)
            changed[place] ^= 4
            assert refused(target, argv, bytes(changed)) == "stream-damaged"
            assert target.image(target.recv).points == before
        assert feed(argv, stream) is None

    def test_a_killed_receive_leaves_the_target_as_it_was(self, plain: Pair) -> None:
        """A receiver that is killed in the middle leaves the last point, and the increment can be sent again."""
        stream, argv = increment(plain)
        target = plain[1]
        before = target.image(target.recv).points
        receiver = subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert receiver.stdin is not None
        receiver.stdin.write(stream[: len(stream) // 2])
        receiver.stdin.flush()
        receiver.send_signal(signal.SIGKILL)
        receiver.wait(timeout=10)
        receiver.stdin.close()
        target.volume.discard_partial(target.recv)
        assert target.image(target.recv).points == before
        assert _feed_when_free(target, argv, stream)

    def test_a_killed_first_receive_can_be_repeated(self, pair: Pair) -> None:
        """A run that dies between receiving the first part and the second finds its own unfinished image again."""
        source, target = pair
        point = source.point()
        (part, argv), _ = source.volume.open_send(source.live, point.name, None)
        receive = target.volume.open_receive(target.recv, part, origin=None)
        assert feed(receive, stream_bytes(argv)) is None
        assert target.image(target.recv).role is ImageRole.RECV
        with pytest.raises(SnaprepError) as caught:
            target.volume.received(target.recv, point.name, point.guids)
        assert caught.value.id == "receive-incomplete"
        ship(source, target, point)
        newest = target.image(target.recv).newest
        assert newest is not None
        assert newest.guids == point.guids
        aside = next(i for i in target.volume.facts().images if i.role is ImageRole.ISOLATED)
        target.volume.destroy_image(aside.name)

    def test_the_wrong_point_is_not_taken_for_the_right_one(self, plain: Pair) -> None:
        """Reading back compares GUIDs, not names."""
        source, target = plain
        point = source.point()
        ship(source, target, point)
        with pytest.raises(SnaprepError) as caught:
            target.volume.received(target.recv, point.name, [point.guid + 1])
        assert caught.value.id == "receive-incomplete"

    def test_a_base_that_is_gone_is_said(self, plain: Pair) -> None:
        """An increment from a base that the source destroyed is refused before a byte is sent."""
        source, target = plain
        base = source.point()
        ship(source, target, base)
        head = source.point()
        source.volume.destroy_point(source.live, base.name)
        with pytest.raises(SnaprepError) as caught:
            source.volume.open_send(source.live, head.name, base.guid)
        assert caught.value.id == "base-missing"

    def test_a_bookmark_is_a_base_when_the_snapshot_is_gone(self, pair: Pair) -> None:
        """Where there are bookmarks, a base that was let go of still is one, of the image itself and of a clone's
        origin; without them it is gone.
        """
        source, target = pair
        base = source.point()
        ship(source, target, base)
        source.volume.hold(source.live, base.name)
        source.volume.hold(source.live, base.name)
        assert source.image(source.live).bookmarks == ()  # the snapshot itself is better
        source.volume.let_go(source.live, base.name)
        source.write("more.dat", 2 << 20)
        head = source.point()
        if "bookmarks" not in source.volume.facts().caps:
            with pytest.raises(SnaprepError, match="does not descend"):
                source.volume.open_send(source.live, head.name, base.guid)
            return
        assert [b.guids for b in source.image(source.live).bookmarks] == [base.guids]
        assert 2 << 20 <= source.volume.estimate_bytes(source.live, head.name, base.guid) < 4 << 20
        clone = f"{source.live}.scratch"
        source.volume.clone(source.live, head.name, clone, mountpoint=None, role=ImageRole.SCRATCH)
        assert source.volume.open_send(clone, source.volume.snapshot(clone, "of-a-clone").name, base.guid)
        source.raw("destroy", "-r", clone)
        assert 2 << 20 <= ship(source, target, head) < 4 << 20
        target.present(head.name)
        assert target.digest() == source.digest()

    def test_bookmarks_are_few(self, pair: Pair) -> None:
        """Of the points that were let go of, the last held one's bookmark is left, and other people's stay."""
        source, _ = pair
        if "bookmarks" not in source.volume.facts().caps:
            return
        points = [source.point() for _ in range(3)]
        source.raw("bookmark", f"{source.live}@{points[0].name}", f"{source.live}#nightly")
        source.raw("bookmark", f"{source.live}/log@{points[0].name}", f"{source.live}/log#nightly")
        for point in points:
            source.volume.hold(source.live, point.name)
            source.volume.let_go(source.live, point.name)
        image = source.image(source.live)
        assert [b.name for b in image.bookmarks] == [points[-1].name]
        assert (image.strangers, image.fragments) == ((), ())
        assert "nightly" in source.raw("list", "-H", "-t", "bookmark", "-o", "name", source.live)
        source.volume.set_automount(source.live, on=False)
        aside = source.set_aside(source.live, "isolated")
        assert [b.name for b in source.image(aside).bookmarks] == [points[-1].name]

    def test_an_increment_onto_another_base_is_refused(self, plain: Pair) -> None:
        """The target has a newer point than the increment starts from: refused, as such or, by newer versions of ZFS,
        as written to since the base.
        """
        stream, argv = increment(plain)
        source, target = plain
        assert feed(argv, stream) is None
        other, base = source.point(), source.image(source.live).points[0]
        ((_, send),) = source.volume.open_send(source.live, other.name, base.guid)
        assert refused(target, argv, stream_bytes(send)) in {"base-missing-on-target", "target-modified"}

    def test_what_actions_rest_on_is_what_was_seen(self, plain: Pair) -> None:
        """The marks and the import that are looked at before an action are those of the facts it was decided on."""
        source, _ = plain
        source.volume.set_properties(source.live, {"serves": "primary", "generation": "3"})
        assert source.volume.marks(source.live, ["serves", "generation", "none"]) == {
            "serves": "primary",
            "generation": "3",
        }
        assert source.volume.marks(f"{source.live}.nothing", ["serves"]) is None
        assert source.volume.import_id() == source.volume.facts().import_id

    def test_tuning_travels(self, plain: Pair) -> None:
        """A copy has the record size that the source set, and so has the clone that serves."""
        source, target = plain
        source.raw("set", "recordsize=8K", source.live)
        point = source.point()
        ship(source, target, point)
        image = target.present(point.name)
        assert image.tuning == {"recordsize": "8192"}


def _feed_when_free(target: Side, argv: list[str], stream: bytes) -> bool:
    """After a kill the kernel may still be putting the receive away."""
    end = time.monotonic() + 10
    while (failed := feed(argv, stream)) is not None:
        assert target.volume.stream_failed(failed.status, failed.stderr).id == "dataset-busy"
        assert time.monotonic() < end
    return True


class TestWhatIsNotOurs:
    def test_a_foreign_dataset_is_not_received_into(self, plain: Pair) -> None:
        """A dataset with the name of the recv image that no run made is refused and not touched."""
        source, target = plain
        target.create(target.recv, None)
        source.point()
        with pytest.raises(SnaprepError) as caught:
            target.volume.open_receive(target.recv, "", origin=None)
        assert caught.value.id == "not-ours"
        assert target.image(target.recv).role is ImageRole.FOREIGN

    def test_an_intent_to_receive_claims_nothing_by_itself(self, plain: Pair) -> None:
        """A run that died before anything arrived does not make a dataset ours that somebody created since."""
        _, target = plain
        target.volume.open_receive(target.recv, "", origin=None)
        target.create(target.recv, None)
        assert target.image(target.recv).role is ImageRole.FOREIGN
        with pytest.raises(SnaprepError) as caught:
            target.volume.destroy_image(target.recv)
        assert caught.value.id == "not-ours"
        target.volume.rename(target.recv, f"{target.live}.old-1")
        assert not target.image(f"{target.live}.old-1").ours

    def test_inherited_marks_do_not_count(self, plain: Pair) -> None:
        """A mark on the parent makes nothing below it ours."""
        _, target = plain
        for word in ("pair=p", "role=recv", "created=x"):
            target.raw("set", f"snaprep:{word}", target.name)
        target.create(target.recv, None)
        assert target.image(target.recv).role is ImageRole.FOREIGN
        assert not target.image(target.recv).ours
        with pytest.raises(SnaprepError, match="was not created by"):
            target.volume.destroy_image(target.recv)

    def test_a_modified_recv_image_is_refused(self, plain: Pair) -> None:
        """Somebody mounted and wrote what is only received: the increment is refused, nothing is rolled back."""
        stream, argv = increment(plain)
        target = plain[1]
        at = target.path.with_name("peek")
        target.raw("set", "readonly=off", target.recv)
        target.raw("set", f"mountpoint={at}", target.recv)
        target.raw("mount", target.recv)
        with pytest.raises(SnaprepError) as caught:
            target.volume.open_receive(target.recv, "", origin=None)
        assert caught.value.id == "recv-mounted"
        (at / "mine").write_text("kept")
        target.volume.unmount(target.recv)
        assert refused(target, argv, stream) == "target-modified"
        target.raw("mount", target.recv)
        assert (at / "mine").read_text() == "kept"

    def test_the_databases_own_image_is_never_destroyed(self, plain: Pair) -> None:
        """The image that was there before us stays, even when the pair has marked it."""
        source, _ = plain
        source.volume.adopt(source.live, ImageRole.LIVE)
        image = source.image(source.live)
        assert image.role is ImageRole.LIVE
        assert not image.ours
        with pytest.raises(SnaprepError) as caught:
            source.volume.destroy_image(source.live)
        assert caught.value.id == "not-ours"

    def test_points_of_others_are_never_destroyed(self, plain: Pair) -> None:
        """A snapshot that the administrator made stays, in the live image and in what we received or cloned."""
        source, target = served(plain)
        for side, image in ((source, source.live), (target, target.recv), (target, target.live)):
            side.raw("snapshot", f"{image}@nightly")
            side.raw("snapshot", f"{side.live}@snaprep-p-by-hand") if image == source.live else None
            with pytest.raises(SnaprepError) as caught:
                side.volume.destroy_point(image, "nightly")
            assert caught.value.id == "not-ours"
        with pytest.raises(SnaprepError) as caught:
            source.volume.destroy_point(source.live, "snaprep-p-by-hand")
        assert caught.value.id == "not-ours"
        with pytest.raises(SnaprepError) as caught:
            target.volume.destroy_image(target.live)
        assert caught.value.id == "not-ours"

    def test_another_pairs_image_is_not_adopted(self, plain: Pair) -> None:
        """An image marked by another pair is refused."""
        source, _ = plain
        source.raw("set", "snaprep:pair=q", source.live)
        with pytest.raises(SnaprepError) as caught:
            source.volume.adopt(source.live, ImageRole.LIVE)
        assert caught.value.id == "not-ours"
        assert source.image(source.live).role is ImageRole.FOREIGN


class TestPoints:
    def test_a_held_point_stays(self, pair: Pair) -> None:
        """Our hold and anybody else's keep a point, and facts tell them apart."""
        source, _ = pair
        point = source.point()
        source.volume.hold(source.live, point.name)
        source.volume.hold(source.live, point.name)
        source.raw("hold", "other", f"{source.live}@{point.name}")
        seen = source.image(source.live).newest
        assert seen is not None
        assert (seen.held, seen.held_by_others) == (True, True)
        source.volume.release(source.live, point.name)
        source.volume.release(source.live, point.name)
        seen = source.image(source.live).newest
        assert seen is not None
        assert (seen.held, seen.held_by_others) == (False, True)
        with pytest.raises(SnaprepError) as caught:
            source.volume.destroy_point(source.live, point.name)
        assert caught.value.id == "point-held"
        source.raw("release", "other", f"{source.live}@{point.name}")
        source.volume.destroy_point(source.live, point.name)
        source.volume.destroy_point(source.live, point.name)
        source.volume.release(source.live, point.name)
        assert source.image(source.live).points == ()

    def test_a_point_is_let_go_of_with_its_hold(self, pair: Pair) -> None:
        """Our hold and the point go together, also when a kill kept the mark from being set; gone already is fine."""
        source, _ = pair
        points = [source.point(), source.point()]
        source.volume.hold(source.live, points[0].name)
        for part in source.parts:
            source.raw("hold", "snaprep:p", f"{source.live}/{part}@{points[1].name}".replace("/@", "@"))
        for point in points:
            source.volume.let_go(source.live, point.name)
            source.volume.let_go(source.live, point.name)
        assert source.image(source.live).points == ()

    def test_letting_go_leaves_what_others_need(self, plain: Pair) -> None:
        """A point that somebody else holds, or a clone stands on, stays: without our hold, theirs still told apart."""
        source, _ = plain
        point = source.point()
        at = f"{source.live}@{point.name}"
        for takes, gives, why in (
            (("hold", "other", at), ("release", "other", at), "point-held"),
            (("clone", at, f"{source.live}-clone"), ("destroy", f"{source.live}-clone"), "has-dependents"),
        ):
            source.volume.hold(source.live, point.name)
            source.raw(*takes)
            with pytest.raises(SnaprepError) as caught:
                source.volume.let_go(source.live, point.name)
            assert caught.value.id == why
            source.raw(*gives)
            source.raw("hold", "another", at)
            seen = source.image(source.live).newest
            assert seen is not None
            assert (seen.held, seen.held_by_others) == (False, True)
            source.raw("release", "another", at)

    def test_an_incomplete_point_is_no_point(self, pair: Pair) -> None:
        """A snapshot that only one part has is a fragment, is never a base, and can be cleaned up."""
        source, _ = pair
        point = source.point()
        source.raw("destroy", f"{source.live}/log@{point.name}")
        image = source.image(source.live)
        assert image.points == ()
        assert image.fragments == (point.name,)
        source.volume.destroy_point(source.live, point.name)
        assert source.image(source.live).fragments == ()

    def test_a_name_is_taken_once(self, pair: Pair) -> None:
        """A second snapshot of the same name is refused, with its own id."""
        source, _ = pair
        point = source.point()
        with pytest.raises(SnaprepError) as caught:
            source.volume.snapshot(source.live, point.name)
        assert caught.value.id == "snapshot-exists"

    def test_points_are_in_the_order_in_which_they_were_made(self, plain: Pair) -> None:
        """Order is the transaction group, whatever the names are."""
        source, _ = plain
        made = [source.volume.snapshot(source.live, f"snaprep-p-{word}") for word in ("z", "a", "m")]
        assert [p.guid for p in source.image(source.live).points] == [p.guid for p in made]

    def test_what_is_below_and_not_configured_is_said(self, plain: Pair) -> None:
        """A dataset below the image that is no part of it is reported."""
        source, _ = plain
        source.raw("create", f"{source.live}/other one")
        assert source.image(source.live).strangers == ("other one",)


class TestServing:
    def test_serving_goes_on_while_the_base_moves(self, pair: Pair) -> None:
        """The clone is written while increments arrive below it, and neither sees the other."""
        source, target = served(pair)
        mine = os.urandom(1 << 20)
        (target.path / "mine.dat").write_bytes(mine)
        for _ in range(3):
            source.write("bank.dat", 1 << 20)
            ship(source, target, source.point())
        assert (target.path / "mine.dat").read_bytes() == mine
        at = target.path.with_name("peek")
        newest = target.image(target.recv).newest
        assert newest is not None
        scratch = f"{target.live}.scratch"
        target.volume.clone(target.recv, newest.name, scratch, mountpoint=str(at), role=ImageRole.SCRATCH)
        assert target.digest(at) == source.digest()
        target.volume.destroy_image(scratch)

    def test_a_failed_cutover_costs_nothing(self, plain: Pair) -> None:
        """Taking a presented clone away again leaves the base as it was, and the next one is presented as easily."""
        source, target = served(plain)
        (target.path / "started").write_text("x")
        target.volume.destroy_image(target.live)
        source.write("bank.dat", 1 << 20)
        point = source.point()
        ship(source, target, point)
        target.present(point.name)
        assert target.digest() == source.digest()

    def test_a_half_made_clone_is_completed(self, pair: Pair) -> None:
        """A kill between the clones of two parts is repaired by asking again; a whole clone is not made twice."""
        source, target = pair
        point = source.point()
        ship(source, target, point)
        target.present(point.name)
        target.volume.unmount(target.live)
        target.raw("destroy", f"{target.live}/log")
        target.present(point.name)
        assert target.digest() == source.digest()
        with pytest.raises(SnaprepError) as caught:
            target.present(point.name)
        assert caught.value.id == "dataset-exists"

    def test_setting_aside_keeps_everything(self, pair: Pair) -> None:
        """An image that is renamed is out of the way and not mounted, and its own tail is still in it."""
        _, target = served(pair)
        (target.path / "tail").write_text("only here")
        aside = target.set_aside(target.live, "isolated")
        image = target.image(aside)
        assert image.role is ImageRole.ISOLATED
        assert image.mounted_at is None
        assert not image.automounts
        assert target.volume.facts().image(target.live) is None
        target.volume.mount(aside, str(target.path))
        assert (target.path / "tail").read_text() == "only here"

    def test_the_path_shows_the_right_dataset(self, pair: Pair) -> None:
        """After names were swapped the path shows the new image; a path that is taken is refused."""
        source, target = served(pair)
        aside = target.set_aside(target.live, "isolated")
        point = source.point()
        ship(source, target, point)
        target.present(point.name)
        assert target.image(target.live).mounted_at == str(target.path)
        with pytest.raises(SnaprepError) as caught:
            target.volume.mount(aside, str(target.path))
        assert caught.value.id == "mountpoint-taken"
        target.volume.mount(target.live, str(target.path))

    def test_mounting_elsewhere_moves_all_parts(self, pair: Pair) -> None:
        """All parts follow to the new path."""
        _, target = served(pair)
        at = target.path.with_name("other place")
        before = target.digest()
        target.volume.mount(target.live, str(at))
        assert target.digest(at) == before
        assert not target.path.joinpath("log").exists() or not any(target.path.joinpath("log").iterdir())

    def test_automount_is_switched_for_all_parts(self, pair: Pair) -> None:
        """What is off does not come up at boot, in any part; switching does not mount or unmount."""
        source, _ = pair
        assert source.image(source.live).automounts
        source.volume.set_automount(source.live, on=False)
        assert not source.image(source.live).automounts
        assert source.image(source.live).mounted_at == str(source.path)
        source.volume.set_automount(source.live, on=True)
        assert source.image(source.live).automounts

    def test_properties_are_kept_and_removed(self, plain: Pair) -> None:
        """What is stored on an image is read back, odd characters included, and can be removed."""
        source, _ = plain
        source.volume.set_properties(source.live, {"serves": "primary", "note": "tab\there, 100 % = fine"})
        assert source.image(source.live).properties == {"serves": "primary", "note": "tab\there, 100 % = fine"}
        source.volume.set_properties(source.live, {"note": ""})
        assert source.image(source.live).properties == {"serves": "primary"}

    @pytest.mark.parametrize("how", ["file", "folder"])
    def test_a_busy_image_names_its_users(self, pair: Pair, how: str) -> None:
        """An open file or a working directory is seen before anything is unmounted, with the process that has it."""
        source, _ = pair
        inside = source.path / "log"
        words = ["sleep", "60"] if how == "folder" else ["tail", "-f", str(inside / "log1.dat")]
        user = subprocess.Popen(words, cwd=inside if how == "folder" else "/", stdout=subprocess.DEVNULL)
        try:
            seen: tuple[str, ...] = ()
            while not any(u.startswith(f"{user.pid} ") for u in seen):
                assert user.poll() is None
                seen = source.image(source.live).in_use_by
            with pytest.raises(SnaprepError) as caught:
                source.volume.unmount(source.live)
            assert caught.value.id == "dataset-busy"
            assert caught.value.info.details == seen
            with pytest.raises(SnaprepError) as caught:
                source.volume.rename(source.live, f"{source.live}.isolated-1")
            assert caught.value.id == "dataset-busy"
            assert source.image(source.live).mounted_at == str(source.path)
        finally:
            user.kill()
            user.wait()
        source.volume.rename(source.live, f"{source.live}.isolated-1")


def switch(old: Side, new: Side, *, word: str) -> int:
    """Move the service from `old` to `new` with one increment; `old` keeps a tail of its own. The stream's size."""
    final = old.point()
    size = ship(old, new, final)
    if new.volume.facts().image(new.live) is not None:
        new.set_aside(new.live, "isolated")
    new.present(final.name)
    (old.path / "tail").write_text(f"never shipped: {word}")
    (new.path / "served").write_text(word)
    return size


class TestFailBack:
    def test_back_and_forth_along_the_chain(self, pair: Pair) -> None:
        """Six switches, each by an increment, each with a diverged old side that is set aside and never touched."""
        source, target = pair
        switch(source, target, word="0")
        old, new = source, target
        for word in "123456":
            new.write("bank.dat", 1 << 20)
            expected = new.digest()
            old, new = new, old
            size = switch(old, new, word=word)
            assert size < 4 << 20
            expected_now = {k: v for k, v in new.digest().items() if k != "served"}
            assert expected_now == {k: v for k, v in expected.items() if k != "served"}
        for side in pair:
            for image in side.volume.facts().images:
                if image.role is ImageRole.LIVE or image.name.startswith(f"{side.live}.isolated"):
                    assert image.mounted_at in (None, str(side.path))

    def test_a_chain_is_let_go_of_by_promotions(self, pair: Pair) -> None:
        """An image at the end of a chain of clones is promoted until it stands on none of them: they all can go, it
        loses nothing, and the next increment starts from it as ever.
        """
        source, target = pair
        for old, new in ((source, target), (target, source), (source, target)):
            switch(old, new, word=new.name)
        expected, promotions = target.digest(), 0
        while target.image(target.live).origin is not None:
            target.volume.promote(target.live)
            promotions += 1
            assert promotions < 10
        # Without `receive -o origin=` each increment into another image has moved the former points to it.
        assert promotions == (3 if "origin" in target.volume.facts().caps else 1)
        others = [i.name for i in target.volume.facts().images if i.name != target.live]
        assert len(others) == 3
        for name in others:
            target.volume.destroy_image(name)
        assert [i.name for i in target.volume.facts().images] == [target.live]
        assert target.digest() == expected
        target.write("bank.dat", 1 << 20)
        assert ship(target, source, target.point()) < 4 << 20

    def test_several_rounds_before_a_fail_back(self, plain: Pair) -> None:
        """After the first increment onto the diverged side's point, further ones follow onto it."""
        source, target = plain
        switch(source, target, word="away")
        tail = source.digest()
        sizes = []
        for _ in range(3):
            target.write("round.dat", 1 << 20)
            sizes.append(ship(target, source, target.point()))
        assert all(size < 3 << 20 for size in sizes)
        assert [p.guids for p in source.image(source.recv).points][-3:] == [
            p.guids for p in target.image(target.live).points
        ][-3:]
        assert source.digest() == tail

    def test_a_missing_recv_image_never_redirects_an_increment(self, plain: Pair) -> None:
        """ZFS would write an increment for a missing dataset into the one that has the base: refused as stale."""
        source, target = served(plain)
        base = target.image(target.recv).newest
        assert base is not None
        target.set_aside(target.recv, "old")
        with pytest.raises(Stale):
            target.volume.open_receive(target.recv, "", origin=None, base_guid=base.guid)
        with pytest.raises(Stale):
            target.volume.open_receive(f"{target.live}.other", "", origin=None, base_guid=base.guid)
        assert source.image(source.live).mounted_at == str(source.path)

    def test_refresh_in_reverse_makes_the_fail_back_small(self, plain: Pair) -> None:
        """The replica's own snapshots, shipped back, are the base of the next fail-back: what it costs stays small."""
        source, target = served(plain)
        target.write("replayed.dat", 8 << 20)
        ship(target, source, target.point())
        target.write("since.dat", 1 << 20)
        assert ship(target, source, target.point()) < 2 << 20
        assert source.image(source.live).mounted_at == str(source.path)

    def test_history_reaches_through_origins(self, pair: Pair) -> None:
        """A point of the received image is in the history of the clone that was written since."""
        source, target = served(pair)
        shipped = source.image(source.live).points
        target.point()
        facts = target.volume.facts()
        live = facts.image(target.live)
        assert live is not None
        seen = [ancestor.point.guids for ancestor in history(facts, live)]
        assert [p.guids for p in shipped] == seen[1:]

    def test_a_base_behind_the_fork_is_reached(self, pair: Pair) -> None:
        """The peer only has a point older than the one that the serving clone hangs on: the stream still gets there."""
        source, target = pair
        first = source.point()
        ship(source, target, first)
        source.write("bank.dat", 1 << 20)
        second = source.point()
        ship(source, target, second)
        target.present(second.name)
        target.write("bank.dat", 1 << 20)
        expected = target.digest()
        source.raw("destroy", f"{source.live}@{second.name}")
        source.raw("destroy", f"{source.live}/log@{second.name}")
        ship(target, source, target.point())
        newest = source.image(source.recv).newest
        assert newest is not None
        source.set_aside(source.live, "isolated")
        source.present(newest.name)
        assert source.digest() == expected

    def test_promotion_lets_the_origin_go(self, pair: Pair) -> None:
        """An image that something hangs on is refused; after the promotion it can be destroyed, and nothing is lost."""
        source, target = served(pair)
        expected = target.digest()
        with pytest.raises(SnaprepError) as caught:
            target.volume.destroy_image(target.recv)
        assert caught.value.id == "has-dependents"
        assert target.live in caught.value.info.details[0]
        target.volume.promote(target.live)
        target.volume.promote(target.live)
        target.volume.destroy_image(target.recv)
        target.volume.destroy_image(target.recv)
        assert target.digest() == expected
        assert target.image(target.live).origin is None
        assert [p.guids for p in target.image(target.live).points] == [
            p.guids for p in source.image(source.live).points
        ]


class TestSpace:
    def test_a_pool_that_fills_during_a_receive(self, make_side: Make) -> None:
        """The receive is refused for lack of space, and the target is as it was."""
        source, target = seeded(make_side, (), target_mib=80)
        ship(source, target, source.point())
        before = target.image(target.recv).points
        source.write("big.dat", 90 << 20)
        head = source.point()
        base = source.image(source.live).points[0]
        ((_, argv),) = source.volume.open_send(source.live, head.name, base.guid)
        receive = target.volume.open_receive(target.recv, "", origin=None)
        assert refused(target, receive, stream_bytes(argv)) == "no-space"
        assert target.image(target.recv).points == before

    def test_a_pool_that_is_full_before(self, make_side: Make) -> None:
        """A full source says so when it is asked for a snapshot; facts still come."""
        source, _ = seeded(make_side, ())
        free = source.volume.free_bytes()
        with pytest.raises(OSError, match="No space"):
            source.write("all.dat", free + (8 << 20))
        with pytest.raises(SnaprepError) as caught:
            _fill_up(source)
        assert caught.value.id == "no-space"
        assert source.volume.facts().free_bytes < 1 << 20

    def test_the_estimate_is_honest(self, plain: Pair) -> None:
        """Where a size can be told, it is near the stream's."""
        source, _ = plain
        base = source.point()
        source.write("more.dat", 4 << 20)
        head = source.point()
        if "estimate" not in source.volume.facts().caps:
            return
        for guid in (None, base.guid):
            ((_, argv),) = source.volume.open_send(source.live, head.name, guid)
            actual = len(stream_bytes(argv))
            assert 0.8 * actual < source.volume.estimate_bytes(source.live, head.name, guid) < 1.2 * actual
        with pytest.raises(SnaprepError) as caught:
            source.volume.estimate_bytes(source.live, head.name, 1)
        assert caught.value.id == "base-missing"

    def test_what_points_pin_is_counted(self, plain: Pair) -> None:
        """Space that only snapshots hold is reported as pinned."""
        source, _ = plain
        source.point()
        source.write("bank.dat", 8 << 20)
        source.point()
        assert 7 << 20 < source.image(source.live).pinned_bytes < 10 << 20


class TestFacts:
    def test_an_empty_host_has_facts(self, make_side: Make) -> None:
        """No image yet: the pool's facts are there all the same."""
        side = make_side("alpha")
        facts = side.volume.facts()
        assert facts.images == ()
        assert facts.store == "alpha"
        assert facts.store_health == "ONLINE"
        assert facts.free_bytes > 100 << 20
        assert facts.store_guid > 0

    def test_a_missing_parent_is_said(self, make_side: Make) -> None:
        """A parent dataset that does not exist is an error of its own."""
        side = make_side("alpha", dataset="no such/bank")
        with pytest.raises(SnaprepError) as caught:
            side.volume.facts()
        assert caught.value.id == "unknown-dataset"

    def test_facts_are_quick_with_many_points(self, plain: Pair) -> None:
        """With 200 snapshots one look takes well under 0.3 s: each round looks at both hosts. An emulated machine
        shows with fewer of them that it works at all.
        """
        source, _ = plain
        many, bound_s = (20, 10) if in_kernel() else (200, 0.25)
        for _ in range(many):
            source.point()
        best_s = min(_timed(source) for _ in range(5))
        assert best_s < bound_s
        assert len(source.image(source.live).points) == many


def _fill_up(side: Side) -> None:
    """What is left after a write failed holds a snapshot or two."""
    for _ in range(20):
        side.point()


def _timed(side: Side) -> float:
    start = time.monotonic()
    side.volume.facts()
    return time.monotonic() - start
