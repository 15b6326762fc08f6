"""Where messages and results are kept: one wing per server."""
