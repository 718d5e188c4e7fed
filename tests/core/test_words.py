"""Figures in words."""

from __future__ import annotations

from snaprep.core.words import size


def test_sizes_have_three_digits_and_a_unit() -> None:
    """In the unit that leaves three digits before the point; bytes are whole, and the largest unit has no end."""
    said = [size(n) for n in (0, 999, 1000, 1536, 11.2 * (1 << 20), 200 * (1 << 30), 5 * (1 << 60))]
    assert said == ["0 B", "999 B", "0.98 KiB", "1.5 KiB", "11.2 MiB", "200 GiB", "5120 PiB"]
