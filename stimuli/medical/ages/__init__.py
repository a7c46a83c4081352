"""The shipped set `medical/ages`: ages of 0 to 100, beside the same numbers of other things."""
