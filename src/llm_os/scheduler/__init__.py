"""Who runs where and when, and why not. Pure: no I/O, no clock, no SQL."""
