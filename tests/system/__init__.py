"""One file per promise; each test runs a whole engine and leaves nothing behind."""
