"""Figures in the words that errors, plans and screens have in common."""

from __future__ import annotations

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def size(count: float) -> str:
    """Bytes with three digits: "11.2 GiB"."""
    amount = float(count)
    for unit in _UNITS[:-1]:
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{_digits(amount)} {unit}"
        amount /= 1024
    return f"{_digits(amount)} {_UNITS[-1]}"


def _digits(amount: float) -> str:
    if amount >= 99.95:
        return f"{amount:.0f}"
    return f"{amount:.1f}" if amount >= 9.995 else f"{amount:.2f}".removesuffix("0")
