"""The shipped set `medical/drugs`: drugs by what they are given for and by how they act."""
