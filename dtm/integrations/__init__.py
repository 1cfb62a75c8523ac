"""What makes dtm fit where a pool, an executor or a backend of another library is expected."""
