"""Derby's transaction log: read from its files, kept, and carried from one copy to another."""
