"""Stimuli of medicine: words, not advice, and of no patient."""
