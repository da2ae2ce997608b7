"""Precision per layer: tables of cost and noise, an integer program, builds that check it."""
