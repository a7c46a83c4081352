"""The shipped set `medical/map`: six domains that one frame and one kind of pair serve."""
