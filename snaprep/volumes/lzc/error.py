"""The roots of what the functions of libzfs_core raise; `exceptions` has them all."""

from __future__ import annotations

import errno as _errno
from collections.abc import Sequence

from snaprep.volumes.lzc.constants import describe


class ZFSError(Exception):
    """The root of them all."""

    errno: int | None = None
    message: str | None = None
    name: bytes | None = None
    _code: int | None = None

    def __init__(self, name: bytes | None = None) -> None:
        super().__init__(name)
        self.name = name

    @property
    def code(self) -> int | None:
        """What the C function returned for this; `errno` where it returned nothing of its own."""
        return self.errno if self._code is None else self._code

    @code.setter
    def code(self, value: int) -> None:
        self._code = value

    @property
    def failures(self) -> tuple[tuple[bytes | None, int | None], ...]:
        return ((self.name, self.code),)

    def __str__(self) -> str:
        said = f"[Errno {self.code}] {self.message}"
        return said if self.name is None else f"{said}: {_shown(self.name)}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, code={self.code})"


def _shown(name: object) -> str:
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else str(name)


class ZFSGenericError(ZFSError):
    """A number that has no class of its own for the function that returned it."""

    def __init__(self, errno: int, name: bytes | None, message: str) -> None:
        super().__init__(name)
        self.args = (errno, name, message)
        self.errno = errno
        self.message = f"{message}: {describe(errno)}"


class ZFSInitializationFailed(ZFSError):
    """The way to the kernel does not open; `reason` says what is missing."""

    def __init__(self, errno: int, reason: str = "") -> None:
        super().__init__()
        self.args = (errno, reason)
        self.errno = errno
        self.reason = reason
        self.message = f"libzfs_core cannot be used: {reason or describe(errno)}"


class LibraryNotFound(ZFSInitializationFailed):
    """The C libraries are not installed."""


class FunctionNotSupported(ZFSError, NotImplementedError):
    """The library that is installed is older than the function; `name` is the function's."""

    errno = _errno.ENOSYS

    def __init__(self, function: str) -> None:
        super().__init__(function.encode())
        self.args = (function,)
        self.message = f"the installed libzfs_core has no such function ({describe(_errno.ENOSYS)})"


class MultipleOperationsFailure(ZFSError):
    """Some of several things failed: `errors` has an exception for each, `suppressed_count` counts those left out."""

    def __init__(self, errors: Sequence[ZFSError], suppressed_count: int) -> None:
        super().__init__()
        self.args = (errors, suppressed_count)
        self.errno = errors[0].errno
        self.errors = list(errors)
        self.suppressed_count = suppressed_count

    @property
    def failures(self) -> tuple[tuple[bytes | None, int | None], ...]:
        return tuple(failure for error in self.errors for failure in error.failures)

    def __str__(self) -> str:
        more = f"; and {self.suppressed_count} more" if self.suppressed_count else ""
        return f"[Errno {self.code}] {self.message}: {'; '.join(str(error) for error in self.errors)}{more}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.errors!r}, {self.suppressed_count})"
