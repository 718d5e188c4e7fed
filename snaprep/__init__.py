"""Rebuild a database replica from filesystem snapshots while its users keep working."""

__version__ = "0.1.0"
