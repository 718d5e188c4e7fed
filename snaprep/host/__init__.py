"""Reaching a host: start the agent there, call its operations, and lay the path for the bytes."""
