"""The protocol of snapshot storage. One implementation a filesystem; all pass the same contract suite.

Implementations run inside the agent as plain local code. They know nothing of databases, of the other host, or of the
wire; they take and return the values of `snaprep.core.volume` and raise `SnaprepError` with the ids named here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from snaprep.core.errors import SnaprepError
from snaprep.core.model import Finding
from snaprep.core.volume import ImageRole, Point, VolumeFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path at which a run mounts images. In their names "[0-9]" stands for a digit."""

    images: tuple[str, ...]
    path: str
    given: bool = False  # what is mounted there comes from the other host, and is given to the database's account


class Volume(Protocol):
    """Storage of one pair on this host. `image` arguments are names of images: root datasets, directories."""

    programs: Mapping[str, str]  # what it runs, and the packages that have it

    def facts(self, *, deadline_s: float = 20) -> VolumeFacts:
        """Everything about the pair's images. Raises `volume-unavailable`, `unknown-dataset`."""

    def check(self, *, mountpoints: Sequence[str], as_target: bool) -> list[Finding]:
        """What could stop a run, and what other tools do here. `mountpoints`: for serving, and for a replica."""

    def lacking(self, places: Sequence[Place], user: str, group: str) -> list[Finding] | None:
        """What `user`, who runs this agent and is not root, may not do here, each with what gives it; None where only
        root can work. Raises `unknown-dataset`.
        """

    def outside(self, image: str, paths: Sequence[Path]) -> list[Finding]:
        """What of these paths the atomic snapshot of an image does not hold."""

    def import_id(self) -> str:
        """Changes when the store was exported, or its service restarted: what was not on disk by then is gone."""

    def marks(self, image: str, names: Sequence[str]) -> dict[str, str] | None:
        """Those of the named `snaprep:*` properties that are set right on an image; None when there is no image."""

    def free_bytes(self) -> int:
        """What could still be written where the images are; cheap enough to watch."""

    def begin_point(self, image: str, name: str) -> Path | None:
        """Where the engine has to put a whole copy of its own before `snapshot`; None where a snapshot needs none."""

    def snapshot(self, image: str, name: str) -> Point:
        """One atomic snapshot of all parts. Raises `no-space`, `unknown-dataset`, `snapshot-exists`."""

    def hold(self, image: str, point: str) -> None:
        """Hold under the pair's tag. Held already is fine."""

    def release(self, image: str, point: str) -> None:
        """Release the pair's hold. Not held, or gone, is fine."""

    def estimate_bytes(self, image: str, point: str, base_guid: int | None, *, flags: Sequence[str] = ()) -> int:
        """About the size of the stream, where `caps` have the word `estimate`. Raises `base-missing`."""

    def written_bytes(self, image: str) -> int | None:
        """Bytes written since the newest snapshot, those of this moment included; None where nobody can say."""

    def open_send(
        self,
        image: str,
        point: str,
        base_guid: int | None,
        *,
        base_name: str = "",
        flags: Sequence[str] = (),
        token: str | None = None,
    ) -> list[tuple[str, list[str]]]:
        """(part, argv) of the programs that write the streams, in the order in which they must be sent.

        `part` is "" for the root, else the child's relative name. Raises `base-missing`.
        """

    def open_receive(
        self,
        image: str,
        part: str,
        *,
        origin: str | None,
        base_guid: int | None = None,
        resumes: bool = False,
    ) -> list[str]:
        """argv of the program that reads one part's stream into `image`; never mounts, never forces.

        What has come in stays when the stream breaks, where that is possible; with `resumes` the stream goes on with
        what stayed so. `origin` is the full name of the root's point that a new image starts from, for an
        increment whose base lives in another image; where it is None, `base_guid` says which point of `image` the
        increment continues. Raises `not-ours`, `recv-mounted`, and Stale when the base is not the newest point.
        """

    def received(
        self, image: str, point: str, guids: Sequence[int] = (), *, tuning: Mapping[str, str] | None = None
    ) -> Point:
        """Read back a received point, and close a new image: marked, read-only, never mounted by itself.

        Call it after every receive, with the GUIDs that the source says. `tuning` is the source image's, for a new one.
        Raises `receive-incomplete` when the point is not there in every part, or is another.
        """

    def stream_failed(self, status: int, stderr: str) -> SnaprepError:
        """The error for a program of `open_send` or `open_receive` that ended with `status` and said `stderr`.

        `stream-damaged`, `no-space`, `target-modified`, `base-missing`, `base-missing-on-target`, `partial-receive`.
        """

    def adopt(self, image: str, role: ImageRole) -> None:
        """Mark an image that exists, such as the database's own: known to the pair, still not ours to destroy.

        Raises `not-ours` when another pair has marked it.
        """

    def discard_partial(self, image: str) -> None:
        """Throw away the state of an interrupted receive (a stale resume token)."""

    def clone(
        self,
        image: str,
        point: str,
        to: str,
        *,
        mountpoint: str | None,
        role: ImageRole,
        properties: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """A writable clone, marked with the pair, `role` and `properties`; mounted at `mountpoint` unless None.

        A clone that a kill left without all its parts is completed. Raises `dataset-exists`, `mountpoint-taken`.
        """

    def rename(self, image: str, to: str) -> None:
        """Unmount and rename an image with its children. Raises `dataset-busy` with the processes that hold it."""

    def mount(self, image: str, mountpoint: str) -> None:
        """Mount at exactly this path, all parts, and check by dataset that it is there."""

    def unmount(self, image: str) -> None:
        """Raises `dataset-busy` with the processes that hold it."""

    def looked_at(self, image: str, beside: Path) -> AbstractContextManager[Path]:
        """Where the content of an image that nobody has open can be read meanwhile; `beside` is a free place for it."""

    def set_properties(self, image: str, properties: Mapping[str, str]) -> None:
        """Set `snaprep:*` properties (names without the prefix); an empty value removes."""

    def set_automount(self, image: str, *, on: bool) -> None:
        """Whether the image comes up by itself at boot."""

    def destroy_point(self, image: str, point: str) -> None:
        """Destroy one snapshot that this pair created, in every part. Gone already is fine; never recursive.

        Raises `not-ours`, `point-held`, `has-dependents`.
        """

    def let_go(self, image: str, point: str) -> None:
        """`release`, then `destroy_point`: in every round, so with as few processes as there can be."""

    def destroy_image(self, image: str) -> None:
        """Destroy an image that this pair's runs created, and its own snapshots; refuses when something depends on it.

        Raises `not-ours`, `dataset-busy`, `point-held`, `has-dependents`. Gone already is fine.
        """

    def promote(self, image: str) -> None:
        """Make a clone independent of its origin, so that the origin can go. Independent already is fine."""

    def chown_tree(self, image: str, user: str, group: str) -> int:
        """Give the database's files to these names where their numbers differ from the other host's; how many."""
