"""Snapshot storage adapters. They run inside the agent, on the host that holds the data."""
