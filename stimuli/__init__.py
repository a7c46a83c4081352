"""Stimulus sets: tables of texts with a marked target, one row a stimulus.

`load` reads a shipped set by name (`concepts`, `medical/drugs`) or a table of the user's own;
`load_grammar`, one that draws texts without end.
Nothing here knows of models: what depends on a tokenizer is added by the scanner when it records.
"""

from stimuli.grammar import Grammar, load_grammar
from stimuli.stimulus_set import StimulusError, StimulusSet, about, load, shipped

__all__ = ["Grammar", "StimulusError", "StimulusSet", "about", "load", "load_grammar", "shipped"]
