"""The shipped set `medical/drugs_twin`: minerals by metal and by anion, for what drugs show."""
