"""A model in, a volume out.

`find_source` finds a subject, `Model.load` puts it on a device, `record` streams its activations to
disk, `open_volume` reads them back, and a `Subject` is what analyses are given. `Model.intervene`
acts on the live model with `Edit`, `sweep` again and again, and `record_effects` keeps what comes
of it; `resolve` understands the names of
other tools.
"""

from scanner.aliases import Place, resolve
from scanner.dictionaries import DictionaryError
from scanner.effects import Acts, Live, record_effects
from scanner.gates import Tally, agreement_by_neuron, edit_distance, gates_of_both
from scanner.generation import continued
from scanner.interventions import Edit
from scanner.lesions import added, lesioned, without_each, without_heads
from scanner.made import Lesson, Recipe, make
from scanner.model import Model
from scanner.moved_weights import check_same_shape, jolted, relative_change, transplanted
from scanner.neurons import Fired, fired, written
from scanner.patching import Pair, attributed, patched, share_of_way
from scanner.paths import path_patched
from scanner.reading import Chat
from scanner.recording import Recording, record
from scanner.sites import Site, SiteError
from scanner.sources import Anatomy, Source, SourceError, anatomy, find_source
from scanner.subject import Subject
from scanner.sweeps import Outcome, Trial, sweep
from scanner.trained import Training, fresh
from scanner.volume import VolumeError, check_volume, open_volume, verify_volume
from scanner.wire_length import Penalty

__all__ = [
    "Acts",
    "Anatomy",
    "Chat",
    "DictionaryError",
    "Edit",
    "Fired",
    "Lesson",
    "Live",
    "Model",
    "Outcome",
    "Pair",
    "Penalty",
    "Place",
    "Recipe",
    "Recording",
    "Site",
    "SiteError",
    "Source",
    "SourceError",
    "Subject",
    "Tally",
    "Training",
    "Trial",
    "VolumeError",
    "added",
    "agreement_by_neuron",
    "anatomy",
    "attributed",
    "check_same_shape",
    "check_volume",
    "continued",
    "edit_distance",
    "find_source",
    "fired",
    "fresh",
    "gates_of_both",
    "jolted",
    "lesioned",
    "make",
    "open_volume",
    "patched",
    "path_patched",
    "record",
    "record_effects",
    "relative_change",
    "resolve",
    "share_of_way",
    "sweep",
    "transplanted",
    "verify_volume",
    "without_each",
    "without_heads",
    "written",
]
