"""The programs that launchers start. They speak through their attempt folder only."""
