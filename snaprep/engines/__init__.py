"""Database adapters: one room for each engine, each with a host half (runs in the agent) and a pure recipe."""
