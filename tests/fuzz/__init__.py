"""Fuzzing of everything that reads a file or word from outside; ``python -m fuzz`` runs it."""
