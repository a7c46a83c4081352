"""The shipped set `medical/symptoms`: symptoms by what they are of, and faults of other things."""
