"""The pure parts: texts of real programs in, values out."""

from __future__ import annotations

from pathlib import Path

import pytest

from snaprep.core.errors import CheckFailed, SnaprepError, UsageError
from snaprep.core.volume import Image, ImageRole
from snaprep.volumes import mountinfo, owner
from snaprep.volumes.zfs import check as zfs_check
from snaprep.volumes.zfs import facts as zfs_facts
from snaprep.volumes.zfs import features as zfs_features
from snaprep.volumes.zfs import guard as zfs_guard
from snaprep.volumes.zfs import mounts as zfs_mounts
from snaprep.volumes.zfs import stream as zfs_stream
from snaprep.volumes.zfs.facts import Reading
from snaprep.volumes.zfs.features import Features
from snaprep.volumes.zfs.look import Layout
from snaprep.volumes.zfs.volume import ZfsVolume

# Captured from zfs-fuse 0.7.0: a dataset with a space in its name, a child, an inherited and a local mark.
GET = (
    "a/my bank\tguid\t17144909666622539010\t-\n"
    "a/my bank\tcreatetxg\t7\t-\n"
    "a/my bank\torigin\t-\t-\n"
    "a/my bank\tcanmount\ton\tdefault\n"
    "a/my bank\tmountpoint\t/tmp/m\tlocal\n"
    "a/my bank\tused\t237568\t-\n"
    "a/my bank\treferenced\t122880\t-\n"
    "a/my bank\tsnaprep:pair\tp\tlocal\n"
    "a/my bank@s0\tguid\t4226403494668104661\t-\n"
    "a/my bank@s0\tcreatetxg\t20\t-\n"
    "a/my bank@s0\torigin\t-\t-\n"
    "a/my bank@s0\tuserrefs\t0\t-\n"
    "a/my bank@s0\tsnaprep:pair\tp\tlocal\n"
    "a/my bank/log\tguid\t6273271287946687647\t-\n"
    "a/my bank/log\tcreatetxg\t10\t-\n"
    "a/my bank/log\tmountpoint\t/tmp/m/log\tinherited from a/my bank\n"
    "a/my bank/log\treferenced\t114688\t-\n"
    "a/my bank/log\tsnaprep:pair\tp\tinherited from a/my bank\n"
    "a/my bank/log@s0\tguid\t11311745072215315000\t-\n"
    "a/my bank/log@s0\tcreatetxg\t20\t-\n"
    "a/my bank/log@s0\tuserrefs\t0\t-\n"
)
MOUNTINFO = (
    "43 1 0:40 / / rw - ext4 /dev/vda rw\n"
    "68 43 0:44 / /tmp/zl\\040m rw,relatime - fuse.zfs a/my\\040bank rw,user_id=0\n"
    "69 68 0:45 / /tmp/zl\\040m/log ro,relatime - zfs a/my\\040bank/log rw\n"
    "70 43 0:46 / /tmp/zl\\040m rw - fuse.zfs b/other rw\n"
)
ZFS_FUSE_SEND = "usage:\n\tsend [-RDp] [-[iI] snapshot] <snapshot>\n\nFor the property list, run: zfs set|get\n"
ZFS_FUSE_RECEIVE = "usage:\n\treceive [-vnF] <filesystem|volume|snapshot>\n\treceive [-vnF] -d <filesystem>\n"
# The usage texts of OpenZFS 2.1.11 and 2.3.2.
OPENZFS_21_SEND = (
    "usage:\n\tsend [-DnPpRVvLecwhb] [-[i|I] snapshot] <snapshot>\n"
    "\tsend [-DnVvPLecw] [-i snapshot|bookmark] <filesystem|volume|snapshot>\n"
    "\tsend [-nVvPe] -t <receive_resume_token>\n\tsend [-PnVv] --saved filesystem\n"
)
OPENZFS_21_GET = (
    'missing property argument\nusage:\n\tget [-rHp] [-d max] [-o "all" | field[,...]]\n'
    '\t    [-t type[,...]] [-s source[,...]]\n\t    <"all" | property[,...]> [filesystem|volume|snapshot] ...\n'
)
OPENZFS_GET = OPENZFS_21_GET.replace("[-rHp]", "[-rHp] [-j [--json-int]]")
OPENZFS_SEND = (
    "usage:\n\tsend [-DLPbcehnpsVvw] [-i|-I snapshot]\n\t     [-R [-X dataset[,dataset]...]]     <snapshot>\n"
    "\tsend [-nVvPe] -t <receive_resume_token>\n"
)
OPENZFS_RECEIVE = (
    "usage:\n\treceive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ...\n"
    "\t    <filesystem|volume|snapshot>\n\treceive -A <filesystem|volume>\n"
)
MODERN_POOL = {
    f"feature@{name}": "enabled"
    for name in ("extensible_dataset", "large_blocks", "lz4_compress", "embedded_data", "zstd_compress", "bookmarks")
}


def test_an_image_is_read_from_real_output() -> None:
    """Names with spaces, two parts, one complete point; an inherited mark is no mark."""
    rows = zfs_facts.parse_get(GET)
    mounts = zfs_mounts.of_zfs(mountinfo.parse(MOUNTINFO))
    (image,) = zfs_facts.images(["a/my bank"], "a/my bank", ["log"], "p", Reading(rows, rows, mounts))
    assert image.parts == ("log",)
    assert [p.guids for p in image.points] == [(4226403494668104661, 11311745072215315000)]
    assert image.mounted_at == "/tmp/zl m"
    assert image.automounts
    assert not image.ours
    assert image.referenced_bytes == 237568
    assert zfs_facts.is_marked(rows, "a/my bank", zfs_facts.PAIR, "p")
    assert not zfs_facts.is_marked(rows, "a/my bank/log", zfs_facts.PAIR, "p")


def test_a_value_with_tabs_is_whole() -> None:
    """The source is the last column, whatever a user has stored before it."""
    rows = zfs_facts.parse_get("a/b\tsnaprep:note\tone\ttwo\tlocal\nbroken line\n")
    assert rows == {"a/b": {"snaprep:note": zfs_facts.Value("one\ttwo", local=True)}}


def test_only_dotted_siblings_belong() -> None:
    """`bank.recv` is an image of `bank`; `bank2` and `xbank.recv` are not."""
    names = zfs_facts.parse_names("a\na/bank\na/bank.recv\na/bank2\na/xbank.recv\n", "a/bank")
    assert names == ("a/bank", "a/bank.recv")


def test_mounts_are_found_by_dataset() -> None:
    """Escapes are decoded, and an image with something mounted over it is not on top."""
    mounts = zfs_mounts.of_zfs(mountinfo.parse(MOUNTINFO))
    assert [(m.dataset, m.path, m.on_top) for m in mounts] == [
        ("a/my bank", "/tmp/zl m", False),
        ("a/my bank/log", "/tmp/zl m/log", True),
        ("b/other", "/tmp/zl m", True),
    ]


def test_an_old_command_can_little() -> None:
    """zfs-fuse shows no option that we could use, and its pool no feature."""
    assert zfs_features.capabilities(ZFS_FUSE_SEND, ZFS_FUSE_RECEIVE, {"version": "23"}, legacy=True) == frozenset()


def test_a_new_command_can_all() -> None:
    """OpenZFS 2.3's usage texts and a pool with all features."""
    caps = zfs_features.capabilities(OPENZFS_SEND, OPENZFS_RECEIVE, MODERN_POOL, legacy=False)
    assert {"estimate", "resume", "origin", "properties", "large_blocks", "compressed", "embedded", "multi"} <= caps
    assert "zstd_active" not in caps


def test_two_versions_are_told_apart() -> None:
    """OpenZFS 2.1 and 2.3 send and receive alike, and only the newer one says in JSON what it has."""
    pool = MODERN_POOL | {"feature@encryption": "enabled"}
    old, new = (
        zfs_features.capabilities(send, OPENZFS_RECEIVE, pool, legacy=False) for send in (OPENZFS_21_SEND, OPENZFS_SEND)
    )
    assert old == new
    assert "encryption" in new
    assert [zfs_features.has_json(said) for said in (OPENZFS_21_GET, OPENZFS_GET)] == [False, True]
    assert zfs_features.parse_version("zfs-2.1.11-1+deb12u1\nzfs-kmod-2.1.11-1+deb12u1\n") == ("2.1.11-1+deb12u1",) * 2


# As OpenZFS 2.3.2 puts it together: a dataset with a value of two lines, a snapshot, a bookmark.
JSON = (
    '{"output_version":{"command":"zfs get","vers_major":0,"vers_minor":1},"datasets":{'
    '"a/my bank":{"name":"a/my bank","type":"FILESYSTEM","pool":"a","createtxg":"7","properties":{'
    '"guid":{"value":"17144909666622539010","source":{"type":"NONE","data":"-"}},'
    '"user:note":{"value":"one\\na/other\\tsnaprep:pair\\tp\\tlocal","source":{"type":"LOCAL","data":"-"}},'
    '"snaprep:pair":{"value":"p","source":{"type":"INHERITED","data":"a"}}}},'
    '"a/my bank@s0":{"name":"a/my bank@s0","type":"SNAPSHOT","pool":"a","createtxg":"20","dataset":"a/my bank",'
    '"snapshot_name":"s0","properties":{"guid":{"value":"4226403494668104661","source":{"type":"NONE","data":"-"}}}},'
    '"a/my bank#s0":{"name":"a/my bank#s0","type":"BOOKMARK","pool":"a","createtxg":"20","properties":{'
    '"origin":{"value":"-","source":{"type":"NONE","data":"-"}}}}}}\n'
)


def test_json_is_read_like_text() -> None:
    """The same rows come of both; a value that looks like lines of the text is one value."""
    rows = zfs_facts.parse_json(JSON)
    assert rows is not None
    assert set(rows) == {"a/my bank", "a/my bank@s0", "a/my bank#s0"}
    assert rows["a/my bank"]["user:note"] == zfs_facts.Value("one\na/other\tsnaprep:pair\tp\tlocal", local=True)
    assert not zfs_facts.is_marked(rows, "a/my bank", zfs_facts.PAIR, "p")
    assert zfs_facts.number_of(rows, "a/my bank@s0", "guid") == 4226403494668104661
    assert zfs_facts.text_of(rows, "a/my bank#s0", "origin") is None


@pytest.mark.parametrize("said", [JSON[:200], JSON.replace("one", "\\u00e9"), "", "{}\n"])
def test_json_that_cannot_be_relied_on(said: str) -> None:
    """What is not whole, or was written by the numbers of its characters, is left to the text."""
    assert zfs_facts.parse_json(said) is None


def test_versions_and_sizes_are_parsed() -> None:
    """Both kinds of `zfs version`, and rounded sizes of an old `zpool get`."""
    assert zfs_features.parse_version("zfs-2.3.9-1\nzfs-kmod-2.2.6-1\n") == ("2.3.9-1", "2.2.6-1")
    assert zfs_features.parse_version("zfs-2.3.9-1\n") == ("2.3.9-1", "")
    assert zfs_features.parse_version("unrecognized command 'version'\n") is None
    assert zfs_features.parse_size("250M") == 250 << 20
    assert zfs_features.parse_size("1.5T") == 3 << 39
    assert zfs_features.parse_size("-") == 0
    table = "NAME  PROPERTY  VALUE   SOURCE\nmy a  guid      164533  default\nmy a  health    ONLINE  -\n"
    assert zfs_features.parse_pool_columns("my a", table) == {"guid": "164533", "health": "ONLINE"}


def test_a_module_of_another_version_is_said() -> None:
    """Commands and module of one version are fine; after an upgrade without a restart they differ."""
    caps = frozenset[str]()
    assert zfs_check.versions(Features("2.3.9-1", legacy=False, caps=caps, module="2.3.9-1ubuntu2")) == []
    assert zfs_check.versions(Features("legacy", legacy=True, caps=caps)) == []
    (said,) = zfs_check.versions(Features("2.3.9-1", legacy=False, caps=caps, module="2.2.6-1"))
    assert (said.id, said.level) == ("zfs-versions", "warn")


def test_command_lines() -> None:
    """Everything is argv: a space in a name stays in one word, and nothing forces."""
    assert zfs_stream.send("a/my b/log@x", "a/o.recv/log@y", ["-L"]) == [
        "zfs", "send", "-L", "-i", "a/o.recv/log@y", "a/my b/log@x",
    ]  # fmt: skip
    received = zfs_stream.receive("b/r", resumable=True, origin="b/o@y", properties={"readonly": "on"})
    assert received == ["zfs", "receive", "-u", "-s", "-o", "readonly=on", "-o", "origin=b/o@y", "b/r"]
    assert zfs_stream.dry(["zfs", "send", "a@b"]) == ["zfs", "send", "-n", "-P", "a@b"]


@pytest.mark.parametrize(
    ("said", "size"), [("full\ta@b\t5\nsize\t1234\n", 1234), ("size\t18446744073170717728\n", 0), ("", 0)]
)
def test_estimates_are_clamped(said: str, size: int) -> None:
    """A negative size that was printed as a huge one counts as nothing."""
    assert zfs_stream.parse_estimate(said) == size


def test_a_pool_is_no_image() -> None:
    """A whole pool cannot be renamed, so it is refused at once."""
    with pytest.raises(UsageError):
        ZfsVolume(pair="p", root="tank")


def test_a_recv_image_needs_all_its_marks() -> None:
    """Any one missing mark makes it somebody else's."""
    local = {"r": {p: zfs_facts.Value(v, local=True) for p, v in zfs_guard.marks("p", ImageRole.RECV).items()}}
    zfs_guard.require_recv("r", "p", local)
    for prop in local["r"]:
        with pytest.raises(CheckFailed):
            zfs_guard.require_recv("r", "p", {"r": {k: v for k, v in local["r"].items() if k != prop}})


def test_a_marked_image_is_not_to_be_mounted_by_hand() -> None:
    """`check` tells how to mount a dataset that no run has marked; for one that is, who serves is looked at first."""
    layout = Layout("p", "a/bank", ("",))
    for properties, hint in (({}, "zfs mount a/bank"), ({"serves": "primary"}, "takeover")):
        live = Image(name="a/bank", role=ImageRole.LIVE, properties=properties)
        found = next(zfs_check._live(layout, live, "/bank", ("/bank", "/bank.replica"), as_target=False))
        assert found.id == "not-mounted"
        assert hint in found.hint


def test_clones_outside_keep_an_image() -> None:
    """A clone of a part, under any name in the pool, keeps the whole image; its own parts do not."""
    zfs_guard.require_independent("a/b", {"a/b": "-", "a/b/log": "a/b@x", "a/bb": "a/c@b"})
    with pytest.raises(SnaprepError, match="a/other"):
        zfs_guard.require_independent("a/b", {"a/other": "a/b/log@x"})


def test_owners_are_changed_only_where_they_differ(tmp_path: Path) -> None:
    """Files of the tree's owner change hands, others keep theirs; equal numbers cost no walk."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("x")
    assert owner.chown_tree(str(tmp_path), "root", "root") == 0
    with pytest.raises(CheckFailed):
        owner.chown_tree(str(tmp_path), "no-such-user", "root")
    (tmp_path / "link").symlink_to("/etc/passwd")
    before = Path("/etc/passwd").stat().st_uid
    assert owner.chown_tree(str(tmp_path), "nobody", "nogroup") == 4
    assert owner.chown_tree(str(tmp_path), "nobody", "nogroup") == 0
    assert (tmp_path / "d" / "f").owner() == "nobody"
    assert Path("/etc/passwd").stat().st_uid == before
