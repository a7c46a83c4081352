"""The shipped set `agreement`: a verb agrees with a noun that stands before it."""
