"""libzfs_core's functions that work on one filesystem or volume.

The examples need the kernel module. They are run with a pool `tank`, a filesystem `tank/db` and its snapshots
`tank/db@monday` and `tank/db@tuesday`, and `lzc` is this binding.
"""

from __future__ import annotations

import ctypes
import errno
from typing import Final

from snaprep.volumes.lzc import exceptions as lzc_exc
from snaprep.volumes.lzc import translate
from snaprep.volumes.lzc.constants import MAXNAMELEN
from snaprep.volumes.lzc.library import call
from snaprep.volumes.lzc.names import Key, Name, Properties, as_key, as_name

_TYPES: Final = {"zfs": 2, "zvol": 3}
_KEY_COMMANDS: Final = {"new_key": 2, "inherit": 3, "force_new_key": 4, "force_inherit": 5}


def lzc_create(name: Name, ds_type: str = "zfs", props: Properties | None = None, key: Key | None = None) -> None:
    """Make a filesystem ("zfs") or a volume ("zvol", which needs `volsize` in bytes). It is not mounted.

    `props` are properties as the kernel stores them: numbers are numbers, a choice (`compression`) is its number, text
    is bytes. `key` is the wrapping key of an encryption root, WRAPPING_KEY_LEN bytes.

    Raises FilesystemExists, ParentNotFound, WrongParent, PropertyInvalid, FilesystemNameInvalid, NameTooLong,
    DatasetTypeInvalid.

    >>> lzc.lzc_create(b"tank/new", props={b"recordsize": 16384})
    >>> lzc.lzc_exists(b"tank/new")
    True
    """
    name = as_name(name)
    if ds_type not in _TYPES:
        raise lzc_exc.DatasetTypeInvalid(str(ds_type).encode())
    code = call("lzc_create", name, _TYPES[ds_type], props or {}, *as_key(key))
    if code:
        raise translate.create(code, name)


def lzc_clone(name: Name, origin: Name, props: Properties | None = None) -> None:
    """Make a filesystem or volume that begins as the snapshot `origin`. It is not mounted.

    Raises FilesystemExists, DatasetNotFound (the parent or the origin: the kernel does not say which), PoolsDiffer,
    PropertyInvalid, WrongParent, FilesystemNameInvalid, SnapshotNameInvalid, NameTooLong.

    >>> lzc.lzc_clone(b"tank/look", b"tank/db@monday")
    """
    name, origin = as_name(name), as_name(origin)
    code = call("lzc_clone", name, origin, props or {})
    if code:
        raise translate.clone(code, name, origin)


def lzc_promote(name: Name) -> None:
    """Make a clone independent: the snapshots up to its origin become its own, and the former owner its clone.

    Raises NotClone, FilesystemNotFound, SnapshotExists (named: the first snapshot that both have), NameTooLong,
    FilesystemNameInvalid, EncryptionKeyNotLoaded.

    >>> lzc.lzc_clone(b"tank/look", b"tank/db@monday")
    >>> lzc.lzc_promote(b"tank/look")
    >>> lzc.lzc_exists(b"tank/look@monday"), lzc.lzc_exists(b"tank/db@monday")
    (True, False)
    """
    name = as_name(name)
    snapshot = ctypes.create_string_buffer(MAXNAMELEN + 1)
    code = call("lzc_promote", name, snapshot, len(snapshot))
    if code:
        raise translate.promote(code, name, snapshot.value)


def lzc_rename(source: Name, target: Name) -> None:
    """Give a filesystem or volume another name in the same pool. What is mounted stays where it was.

    Raises FilesystemNotFound (the source, or the target's parent), FilesystemExists, PoolsDiffer, WrongParent,
    FilesystemNameInvalid, NameTooLong.

    >>> lzc.lzc_rename(b"tank/db", b"tank/db.old")
    >>> lzc.lzc_exists(b"tank/db")
    False
    """
    source, target = as_name(source), as_name(target)
    code = call("lzc_rename", source, target)
    if code:
        raise translate.rename(code, source, target)


def lzc_destroy(name: Name) -> None:
    """Destroy a filesystem or volume that has neither snapshots nor children and is not mounted.

    Raises FilesystemNotFound, FilesystemNameInvalid, DatasetBusy, and ZFSGenericError with EEXIST where there are
    children.

    >>> lzc.lzc_create(b"tank/short")
    >>> lzc.lzc_destroy(b"tank/short")
    """
    name = as_name(name)
    code = call("lzc_destroy", name)
    if code:
        raise translate.one(code, name, "destroy", {errno.ENOENT: lzc_exc.FilesystemNotFound})


def lzc_exists(name: Name) -> bool:
    """Whether there is a filesystem, volume or snapshot of this name. False for bookmarks, and for bad names.

    Raises NameInvalid for a NUL only.

    >>> lzc.lzc_exists(b"tank/db@monday"), lzc.lzc_exists(b"tank/db@sunday")
    (True, False)
    """
    return bool(call("lzc_exists", as_name(name)))


def lzc_rollback(name: Name) -> bytes:
    """Go back to the newest snapshot, and return its full name. Which one it is may change until it happens: see
    `lzc_rollback_to`.

    Raises FilesystemNotFound, SnapshotNotFound (there is none), NameInvalid, NameTooLong, DatasetBusy.

    >>> lzc.lzc_rollback(b"tank/db")
    b'tank/db@tuesday'
    """
    name = as_name(name)
    snapshot = ctypes.create_string_buffer(MAXNAMELEN + 1)
    code = call("lzc_rollback", name, snapshot, len(snapshot))
    if code:
        raise translate.rollback(code, name)
    return bytes(snapshot.value)


def lzc_rollback_to(name: Name, snap: Name) -> None:
    """Go back to the snapshot `snap`, a full name, which must be the newest.

    Raises SnapshotNotLatest, and what `lzc_rollback` raises.

    >>> lzc.lzc_rollback_to(b"tank/db", b"tank/db@tuesday")
    >>> lzc.lzc_rollback_to(b"tank/db", b"tank/db@monday")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.exceptions.SnapshotNotLatest: [Errno 17] newer snapshots exist: tank/db@monday
    """
    name, snap = as_name(name), as_name(snap)
    code = call("lzc_rollback_to", name, snap)
    if code:
        raise translate.rollback(code, name, snap)


def lzc_load_key(fsname: Name, noop: bool, key: Key) -> None:  # noqa: FBT001  # pyzfs's signature
    """Load the wrapping key of an encryption root, or with `noop` only see whether it is the right one.

    Raises EncryptionKeyInvalid, EncryptionKeyAlreadyLoaded, FilesystemNotFound, PropertyInvalid.

    >>> secret = {b"encryption": lzc.zio_encrypt.ZIO_CRYPT_AES_256_GCM, b"keyformat": 1, b"keylocation": b"prompt"}
    >>> lzc.lzc_create(b"tank/safe", props=secret, key=b"k" * 32)
    >>> lzc.lzc_load_key(b"tank/safe", True, b"k" * 32)
    """
    fsname = as_name(fsname)
    code = call("lzc_load_key", fsname, noop, *as_key(key))
    if code:
        doing = "check the key" if noop else "load the key"
        raise translate.key(code, fsname, doing, lzc_exc.EncryptionKeyInvalid)


def lzc_unload_key(fsname: Name) -> None:
    """Forget the key of an encryption root. Raises DatasetBusy (mounted), EncryptionKeyNotLoaded, FilesystemNotFound.

    >>> secret = {b"encryption": lzc.zio_encrypt.ZIO_CRYPT_AES_256_GCM, b"keyformat": 1, b"keylocation": b"prompt"}
    >>> lzc.lzc_create(b"tank/safe", props=secret, key=b"k" * 32)
    >>> lzc.lzc_unload_key(b"tank/safe")
    """
    fsname = as_name(fsname)
    code = call("lzc_unload_key", fsname)
    if code:
        raise translate.key(code, fsname, "unload the key", lzc_exc.EncryptionKeyNotLoaded)


def lzc_change_key(fsname: Name, crypt_cmd: str, props: Properties | None = None, key: Key | None = None) -> None:
    """Wrap the key of a dataset anew: "new_key", "inherit", "force_new_key" or "force_inherit".

    Raises UnknownCryptCommand, EncryptionKeyNotLoaded, FilesystemNotFound, PropertyInvalid.

    >>> secret = {b"encryption": lzc.zio_encrypt.ZIO_CRYPT_AES_256_GCM, b"keyformat": 1, b"keylocation": b"prompt"}
    >>> lzc.lzc_create(b"tank/safe", props=secret, key=b"k" * 32)
    >>> lzc.lzc_change_key(b"tank/safe", "new_key", {b"keyformat": 1, b"keylocation": b"prompt"}, b"n" * 32)
    """
    fsname = as_name(fsname)
    if crypt_cmd not in _KEY_COMMANDS:
        raise lzc_exc.UnknownCryptCommand(str(crypt_cmd).encode())
    code = call("lzc_change_key", fsname, _KEY_COMMANDS[crypt_cmd], props or {}, *as_key(key))
    if code:
        raise translate.key(code, fsname, "change the key", lzc_exc.EncryptionKeyNotLoaded)
