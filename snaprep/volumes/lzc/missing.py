"""What pyzfs offers and no C library has, so that no call of it ever worked. The names are here for code that imports
them, and asks `is_supported` before it calls.
"""

from __future__ import annotations

from typing import NoReturn

from snaprep.volumes.lzc.error import FunctionNotSupported
from snaprep.volumes.lzc.names import Name


def lzc_get_props(name: Name) -> NoReturn:
    """Nothing but an error: `zfs get` does it. What the library of OpenZFS 2.3 calls so is for pools.

    Raises FunctionNotSupported.

    >>> lzc_get_props(b"tank/db")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.error.FunctionNotSupported: [Errno 38] the installed libzfs_core has no such function
    """
    del name
    raise FunctionNotSupported("lzc_get_props")


def lzc_inherit_prop(name: Name, prop: Name) -> NoReturn:
    """Nothing but an error: `zfs inherit` does it.

    Raises FunctionNotSupported.

    >>> lzc_inherit_prop(b"tank/db", b"compression")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.error.FunctionNotSupported: [Errno 38] the installed libzfs_core has no such function
    """
    del name, prop
    raise FunctionNotSupported("lzc_inherit_prop")


def lzc_set_props(name: Name, prop: Name, val: object) -> NoReturn:
    """Nothing but an error: `zfs set` does it.

    Raises FunctionNotSupported.

    >>> lzc_set_props(b"tank/db", b"compression", b"off")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.error.FunctionNotSupported: [Errno 38] the installed libzfs_core has no such function
    """
    del name, prop, val
    raise FunctionNotSupported("lzc_set_props")


def lzc_list_children(name: Name) -> NoReturn:
    """Nothing but an error: `zfs list -d 1` does it.

    Raises FunctionNotSupported.

    >>> lzc_list_children(b"tank")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.error.FunctionNotSupported: [Errno 38] the installed libzfs_core has no such function
    """
    del name
    raise FunctionNotSupported("lzc_list_children")


def lzc_list_snaps(name: Name) -> NoReturn:
    """Nothing but an error: `zfs list -t snapshot` does it.

    Raises FunctionNotSupported.

    >>> lzc_list_snaps(b"tank/db")
    Traceback (most recent call last):
    ...
    snaprep.volumes.lzc.error.FunctionNotSupported: [Errno 38] the installed libzfs_core has no such function
    """
    del name
    raise FunctionNotSupported("lzc_list_snaps")
