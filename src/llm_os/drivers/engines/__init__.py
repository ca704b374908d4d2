"""Engine drivers, one file each."""
