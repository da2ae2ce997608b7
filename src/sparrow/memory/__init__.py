"""Where values lie: views instead of copies, arena offsets, and the proof that they are sound."""
