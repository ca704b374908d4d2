"""Launcher drivers, one file each."""
