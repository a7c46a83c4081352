"""The shipped set `language`: sentences, scrambled ones, and two kinds of nonwords."""
