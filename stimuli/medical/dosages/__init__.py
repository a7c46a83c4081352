"""The shipped set `medical/dosages`: numbers as doses of drugs, and of other things by weight."""
