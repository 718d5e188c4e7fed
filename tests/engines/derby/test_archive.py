"""Log archive mode on a real server: each way in, what is kept, what is let go, and the way back."""

from __future__ import annotations

import shutil
import time
import zipfile
from pathlib import Path

import pytest

from snaprep.core.errors import SnaprepError
from snaprep.engines.derby import files
from snaprep.engines.derby.feed.link import Finish
from snaprep.engines.derby.log import archive
from snaprep.engines.derby.log import scan as log
from snaprep.engines.derby.log.scan import LogPosition
from snaprep.engines.derby.session import ADMIN
from tests.engines.derby.pairs import Two

pytestmark = pytest.mark.derby

CHECKPOINT = "CALL SYSCS_UTIL.SYSCS_CHECKPOINT_DATABASE()"


def grow(pair: Two) -> list[int]:
    """Write a few log files and let Derby delete what it does not need; returns those that are there."""
    for _ in range(3):
        for number in range(60):
            pair.at_source.client.execute(
                ADMIN, "INSERT INTO t VALUES (1, ?, ?)", [str(number), "x" * 2500], deadline_s=10
            )
        pair.sql(CHECKPOINT)
    return log.log_files(pair.source.database() / "log")


def test_asking_takes_effect_with_the_next_boot_only(pair: Two) -> None:
    """The wish alone keeps nothing and is not taken for the mode; after anybody's boot it is noted and keeps."""
    session = pair.at_source
    assert archive.state(session).wanted is False
    archive.ask_for(session)
    found = archive.state(session)
    assert (found.wanted, found.since, found.ours) == (True, None, True)
    assert archive.confirm(session) is False
    assert grow(pair)[0] > 1
    pair.halt.shut_down()
    session.connect("anybody", 20)
    assert archive.confirm(session) is True
    before = log.log_files(pair.source.database() / "log")
    assert grow(pair)[0] == before[0]
    since = archive.state(session).since
    assert since is not None
    assert archive.confirm(session) is True
    assert archive.state(session).since == since


def test_a_bounce_switches_on_and_all_goes_back(pair: Two, tmp_path: Path) -> None:
    """After a bounce files are kept; put back, they are gone and the mode is as it was, also after a restart."""
    session = pair.at_source
    archive.bounce(session, pair.halt)
    first = grow(pair)[0]
    found = archive.state(session)
    assert found.since is not None
    assert found.ours
    assert found.first_file == first < archive.needed_file(session.directory / "log")
    before = archive.before_us(session)
    forgetful = tmp_path / "replica"
    forgetful.mkdir()
    shutil.copy2(session.directory / "service.properties", forgetful)
    for told, on in (("", True), ("true", True), (before, False), (before, False)):
        archive.forget(forgetful, told)
        assert files.service_properties(forgetful).get(archive.PROPERTY) == str(on).lower()
    assert archive.put_back(session) is True
    assert archive.before_us(session) == ""
    found = archive.state(session)
    assert (found.wanted, found.since, found.ours) == (False, None, False)
    assert grow(pair)[0] > first
    assert archive.put_back(session) is False
    pair.halt.shut_down()
    session.admin(30)
    assert grow(pair)[0] > first


def test_a_backup_switches_on_without_a_break(pair: Two, tmp_path: Path) -> None:
    """Sessions live on; the backup is a base from which a feed brings everything, work without a log included."""
    session = pair.at_source
    session.client.open("other", pair.source.url(), "app", "x", 20)
    folder = tmp_path / "backup"
    copy = archive.by_backup(session, folder, 60)
    assert session.client.execute("other", "VALUES 1", deadline_s=5).value == "1"
    since = archive.state(session).since
    assert since == log.log_end(copy / "log").instant
    pair.sql("CREATE INDEX late ON t (i)")
    grow(pair)
    copy.rename(pair.target.database())
    pair.feed().finish(Finish.PROMOTE)
    ours, theirs = pair.digests()
    assert ours == theirs


def test_what_holds_a_backup_up_is_said(pair: Two, tmp_path: Path) -> None:
    """A transaction that has installed a jar keeps a backup from beginning: that is said at once, in both ways of it,
    the transaction is left alone, and afterwards the backup goes through.
    """
    session = pair.at_source
    jar, folder = tmp_path / "some.jar", tmp_path / "backup"
    with zipfile.ZipFile(jar, "w") as archived:
        archived.writestr("nothing", "")
    session.client.open("other", pair.source.url(), "snaprep", "x", 20)
    with session.client.transaction("other", 20):
        session.client.execute("other", "CALL SQLJ.INSTALL_JAR(?, 'SNAPREP.SOME', 0)", [str(jar)], deadline_s=20)
        for way in (archive.copy, archive.by_backup):
            with pytest.raises(SnaprepError) as caught:
                way(session, folder, 20)
            assert caught.value.id == "backup-held"
    assert archive.state(session).wanted is False
    archive.by_backup(session, folder, 60)
    assert archive.state(session).since is not None
    assert (archive.copy(session, tmp_path / "again") / "service.properties").is_file()


def test_a_mode_that_was_on_is_not_ours(archived_pair: Two) -> None:
    """What somebody else switched on stays on."""
    session = archived_pair.at_source
    assert archive.confirm(session) is True
    found = archive.state(session)
    assert found.wanted
    assert not found.ours
    assert archive.put_back(session) is False
    assert archive.state(session).wanted


def test_a_break_is_noticed(pair: Two) -> None:
    """Switched off and on again by others, however quickly: what is since then is not known any more."""
    session = pair.at_source
    archive.bounce(session, pair.halt)
    assert archive.state(session).since is not None
    pair.sql("CALL SYSCS_UTIL.SYSCS_DISABLE_LOG_ARCHIVE_MODE(0)")
    time.sleep(0.02)
    pair.sql(f"CALL SYSCS_UTIL.SYSCS_SET_DATABASE_PROPERTY('{archive.PROPERTY}', 'true')")
    found = archive.state(session)
    assert (found.wanted, found.since) == (True, None)


def test_release_leaves_what_is_needed(pair: Two) -> None:
    """Removed is only what every follower has and Derby's recovery does not need; the database starts after kill -9."""
    session = pair.at_source
    archive.bounce(session, pair.halt)
    logs = pair.source.database() / "log"
    numbers = grow(pair)
    session.client.open("open", pair.source.url(), "app", "x", 20)
    assert archive.release(pair.source.database(), LogPosition(numbers[0], 24).instant) == ()
    middle = numbers[len(numbers) // 2]
    assert archive.release(pair.source.database(), LogPosition(middle, 99).instant) == tuple(
        number for number in numbers if number < middle
    )
    with session.client.transaction("open", 20):
        session.client.execute("open", "UPDATE snaprep.c SET n = 5", deadline_s=10)
        begun = log.log_end(logs).file
        grow(pair)
        archive.release(pair.source.database(), LogPosition(10**6, 24).instant)
        assert log.log_files(logs)[0] <= begun
    pair.sql(CHECKPOINT)
    grow(pair)
    archive.release(pair.source.database(), LogPosition(10**6, 24).instant)
    left = log.log_files(logs)
    assert left[0] > begun
    assert left[0] == min(archive.needed_file(logs), left[-1] - 1)
    rows = pair.sql("SELECT COUNT(*) FROM t")
    pair.source.kill()
    pair.source.start()
    session.connect(ADMIN, 30)
    assert pair.sql("SELECT COUNT(*) FROM t") == rows
    assert pair.sql("SELECT MAX(n) FROM c") == "5"


def test_room_has_a_floor(pair: Two) -> None:
    """Under the floor it is said, so that the replica is given up and not the primary."""
    archive.must_have_room(pair.source.database(), 1)
    with pytest.raises(SnaprepError) as error:
        archive.must_have_room(pair.source.database(), 1 << 60)
    assert error.value.id == "archive-no-room"
    assert files.locked_by(pair.source.database()) is not None
