"""Plain values and decisions: no I/O, no clock, the standard library only."""
