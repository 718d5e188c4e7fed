"""Apache Derby: a Java helper for SQL, and readers for its files, its log and its sockets."""
