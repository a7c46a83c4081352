"""The shipped set `medical/diseases`: stages of diseases in their order, and of other things."""
