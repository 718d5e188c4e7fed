"""What an agent works with once it was told its pair: storage, database, guard, locks, streams."""

from __future__ import annotations

import dataclasses
import grp
import pwd
import threading
import time
from pathlib import Path

from snaprep.agent import keys, locks, pipe
from snaprep.agent.feeds import Feeds, under_way
from snaprep.agent.guarded import GuardProcess
from snaprep.agent.identity import boot_id, login_user
from snaprep.agent.rights import need_account, need_rights
from snaprep.agent.serve import mutter
from snaprep.agent.streams import Streams
from snaprep.core.errors import CheckFailed, SnaprepError, UsageError, named
from snaprep.core.guard import RETRY_S
from snaprep.core.model import HALTED_STATES, EngineState, HostFacts, RunInfo, recv_name
from snaprep.core.perform import MARKS, Rests
from snaprep.core.spec import DerbySpec, HostSpec
from snaprep.engines.derby.host import DerbyHost
from snaprep.volumes.base import Volume
from snaprep.volumes.directory.volume import DirectoryVolume
from snaprep.volumes.zfs.volume import ZfsVolume


def need_owner(owner: str) -> None:
    """The account "user:group" is there, and is ours unless we are root. Streams carry numbers; files are given to
    names. Raises `unknown-user`, `privilege`.
    """
    user, _, group = owner.partition(":")
    try:
        pwd.getpwnam(user)
        grp.getgrnam(group or user)
    except KeyError as error:
        what = f"the files are to belong to {owner}, and here is no such user or group"
        hint = "add it on that host, with any number, or set `owner`"
        raise CheckFailed("unknown-user", what, hint=hint) from error
    need_account(user)


class AgentHost:
    """One host of one pair, as its agent holds it. Made by `configure`, ended with the session."""

    def __init__(self, spec: HostSpec) -> None:
        self.spec = spec
        self.volume = _volume(spec)
        self.engine = DerbyHost(_with_replica_path(spec))
        self.streams = Streams()
        self.feeds = Feeds(spec.pair, self.streams)
        self._guard: GuardProcess | None = None
        self._guarding = threading.RLock()
        self._owed = False  # what a guard held that was killed is not put back yet
        self._closing = threading.Event()
        self._locks: list[locks.Lock] = []
        self.locked = False
        self._entitled = False

    @property
    def inside(self) -> Path:
        """The database's directory, relative to where its image is mounted."""
        return Path(self.spec.derby.database).relative_to(self.spec.mountpoint)

    # -- guard ---------------------------------------------------------------------------------------------------

    @property
    def guard(self) -> GuardProcess:
        """The guard, running. One that was killed is replaced when what it held was put back; raises why it is not."""
        with self._guarding:
            if self._owed:
                self._put_back()
            if self._guard is None:
                self._guard = GuardProcess(self.engine.spec, self._guard_lost)
            return self._guard

    @property
    def has_guard(self) -> bool:
        return self._guard is not None

    def _guard_lost(self) -> None:
        """The guard was killed: do what it would have done, at once and until it is done. Nobody else is left to."""
        with self._guarding:
            lost, self._guard = self._guard, None
            if lost is None:
                return
            self._owed = True
            lost.end_client()
            self._try_to_put_back()
        lost.close()
        while self._owed and not self._closing.wait(RETRY_S):
            with self._guarding:
                self._try_to_put_back()

    def _try_to_put_back(self) -> None:
        """Steps that need the guard tell the operator why it cannot be; here it is left for who reads our messages."""
        try:
            if self._owed:
                self._put_back()
        except SnaprepError as error:
            mutter(f"snaprep agent: what a guard held that was killed: {error.info.what}")
        except Exception as error:  # noqa: BLE001 (whatever goes wrong, it is tried again)
            mutter(f"snaprep agent: what a guard held that was killed: {type(error).__name__}: {error}")

    def _put_back(self) -> None:
        self.engine.reopen()
        self._owed = False

    def reopen(self, deadline_s: float = 60) -> None:
        """Thaw and open without a guard of ours; a guard of somebody else that is at it is waited for."""
        locks.await_guard(self.engine.key, deadline_s)
        with self._guarding:
            self._put_back()

    def guarded(self) -> str:
        """What a guard, ours or another's, holds at present."""
        holder = locks.holder("guard", self.engine.key)
        return holder.verb if holder is not None and holder.verb in HALTED_STATES else ""

    # -- locks ---------------------------------------------------------------------------------------------------

    def lock(self, info: RunInfo, *, database: bool) -> None:
        """Take the pair's lock, and the database's where it will be frozen or gated. Raises `locked`."""
        taken = [locks.Lock("pair", self.spec.pair, info)]
        if database:
            try:
                taken.append(locks.Lock("database", self.engine.key, info))
            except SnaprepError:
                taken[0].release()
                raise
        self._locks += taken
        self.locked = True
        locks.collect(self.spec.pair)

    def unlock(self) -> None:
        while self._locks:
            self._locks.pop().release()
        self.locked = False

    # -- facts ---------------------------------------------------------------------------------------------------

    def facts(self) -> HostFacts:
        """Everything that `decide` reads of this host. Raises `privilege`: others would see half of it, and do less.

        A database that cannot be looked into is told from outside, with the reason as the error: it may well serve.
        """
        if not self._entitled:
            need_rights(self.spec, self.volume)
            self._entitled = True
        spec, guarded, feed = self.spec, self.guarded(), under_way(self.spec.pair)
        # A session that comes while a replica is taken down and booted for its feed would open it.
        fed = EngineState.REPLICA if feed is not None and self.engine.replication.is_replica else ""
        try:
            engine, why_not = self.engine.facts(guarded or fed), None
        except CheckFailed as refused:
            engine, why_not = self.engine.outside(), named(refused.info, spec.name)
        return HostFacts(
            name=spec.name,
            boot_id=boot_id(),
            clock_s=time.time(),
            volume=self.volume.facts(),
            engine=engine,
            live_name=spec.dataset,
            mountpoint=spec.mountpoint,
            owner=self.owner(),
            held_by=None if self.locked else locks.holder("pair", spec.pair),
            guarded=guarded,
            feed=feed,
            error=why_not,
        )

    def rests(self) -> Rests:
        """What actions rest on, as it is now: as few processes as there can be."""
        marks = self.volume.marks(self.spec.dataset, MARKS)
        return Rests(boot_id=boot_id(), import_id=self.volume.import_id(), marks=marks)

    def give_to(self, image: str, owner: str) -> None:
        """Give the files of a copy to "user:group", by name; nothing to do when none is named."""
        if owner:
            user, _, group = owner.partition(":")
            self.volume.chown_tree(image, user, group or user)

    def owner(self) -> str:
        """Whose the database's files are, by name; empty when there are none or the numbers have no name."""
        try:
            path = Path(self.spec.derby.database)
            return f"{path.owner()}:{path.group()}"
        except (OSError, KeyError):
            return ""

    def tidy(self) -> list[str]:
        """Discard half-received state and keys of runs that are over. Only with the pair's lock."""
        done = []
        for name in (self.spec.dataset, recv_name(self.spec.dataset)):
            found = self.volume.facts().image(name)
            if found is not None and found.partial is not None:
                self.volume.discard_partial(name)
                done.append(f"what was copied or received in part for {name} was discarded")
        user, runs = login_user(), pipe.runs_here()
        for run in [run for run, alive in runs.items() if not alive]:
            pipe.clean_run(run)
            done.append(f"what run {run} has left in memory was removed")
        over = frozenset(left.run for left in keys.leftovers(user) if not runs.get(left.run, False))
        if over and (count := keys.clean(user, over)):
            done.append(f"{count} keys of runs that are over were taken back")
        return done

    def close(self) -> None:
        """End the guard first: it puts back what it holds."""
        self._closing.set()
        with self._guarding:  # what a guard held that was killed may be put back in this moment
            guard = self._guard
        if guard is not None:
            guard.close()
        self.feeds.end()
        self.streams.close()
        self.engine.close()
        self.unlock()


def _with_replica_path(spec: HostSpec) -> DerbySpec:
    """The engine's configuration, with the place where a replica of it stands."""
    inside = Path(spec.derby.database).relative_to(spec.mountpoint)
    return dataclasses.replace(spec.derby, replica_database=str(Path(spec.replica_mountpoint) / inside))


def from_spec(spec: HostSpec) -> AgentHost:
    """Raises UsageError for an engine or volume that this version does not have."""
    if spec.engine != "derby":
        raise UsageError("unknown-engine", f"there is no engine {spec.engine}", hint="derby")
    return AgentHost(spec)


def _volume(spec: HostSpec) -> Volume:
    match spec.volume:
        case "zfs":
            return ZfsVolume(pair=spec.pair, root=spec.dataset, children=spec.children)
        case "directory":
            return DirectoryVolume(pair=spec.pair, root=spec.dataset, beside=spec.replica_mountpoint)
        case _:
            raise UsageError("unknown-volume", f"there is no volume {spec.volume}", hint="zfs, directory")
