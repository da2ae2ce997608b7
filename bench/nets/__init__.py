"""Well-known networks with random weights: shapes and operators of the originals, no downloads."""
