"""Clocks and counters: what a bundle costs, measured."""
