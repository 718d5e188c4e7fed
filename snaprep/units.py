"""Durations, sizes and rates as people write them. A number always comes with its unit."""

from __future__ import annotations

import re

_DURATIONS_MS = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZES = {"B": 1}
for _power, _letter in enumerate("KMGTP", start=1):
    _SIZES |= {f"{_letter}B": 1000**_power, f"{_letter}iB": 1024**_power}
_BITS = {"kbit": 125, "Mbit": 125_000, "Gbit": 125_000_000}
_QUANTITY = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,9})?) ?(?P<unit>[A-Za-z]+)")


def parse_duration_ms(text: str) -> int:
    """Milliseconds of "3s", "250 ms" or "1.5min". Raises ValueError with a sentence."""
    return _parse(text, _DURATIONS_MS, "a duration")


def parse_size(text: str) -> int:
    """Bytes of "1 GiB" or "500 MB". Raises ValueError with a sentence."""
    return _parse(text, _SIZES | {"kB": 1000}, "a size")


def parse_rate(text: str) -> int:
    """Bytes per second of "50 MB/s" or "400 Mbit/s", at least 1. Raises ValueError with a sentence."""
    amount, slash, per = text.partition("/")
    if not slash or per != "s":
        raise ValueError(f"{text!r} is not a rate")
    value = _parse(amount, _SIZES | {"kB": 1000} | _BITS, "a rate")
    if value < 1:
        raise ValueError(f"{text!r} would let nothing through")
    return value


def _parse(text: str, units: dict[str, int], means: str) -> int:
    found = _QUANTITY.fullmatch(text)
    if found is None or found["unit"] not in units:
        raise ValueError(f"{text!r} is not {means}")
    return round(float(found["number"]) * units[found["unit"]])
