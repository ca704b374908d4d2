"""Sources and formats of data: one file each; every one ends as a prepared data set folder."""
