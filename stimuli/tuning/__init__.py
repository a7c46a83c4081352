"""The shipped set `tuning`: questions and answers to be taught, and others kept back."""
