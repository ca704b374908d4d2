"""Checks of a data set's quality: one file each; rows in, a part of the report out. They know no task and no source."""
