"""A model in, a volume out.

`find_source` finds a subject, `Model.load` puts it on a device, `record` streams its activations to
disk, `open_volume` reads them back, and a `Subject` is what analyses are given.
"""

from scanner.model import Model
from scanner.recording import Recording, record
from scanner.sites import Site, SiteError
from scanner.sources import Anatomy, Source, SourceError, anatomy, find_source
from scanner.subject import Subject
from scanner.volume import VolumeError, check_volume, open_volume

__all__ = [
    "Anatomy",
    "Model",
    "Recording",
    "Site",
    "SiteError",
    "Source",
    "SourceError",
    "Subject",
    "VolumeError",
    "anatomy",
    "check_volume",
    "find_source",
    "open_volume",
    "record",
]
