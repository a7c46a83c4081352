"""A script: record and read a volume much larger than what may be in flight, and say what it took.

``python weigh_recording.py MODEL FOLDER`` prints one JSON object: bytes of the ``volume``, of what
may be ``in_flight``, of one ``layer``, and what was resident at most beyond what was there before,
while ``recording`` and while ``reading`` a layer.
"""

import json
import sys
from pathlib import Path

import pandas as pd
import torch

from scanner import Model, Recording, find_source, open_volume, passes, record, streaming
from stimuli import StimulusSet

IN_FLIGHT = 16_000_000
ROWS = 6_000


def resident(which: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since `forget`."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) * 1024


def forget() -> int:
    """Begin to measure; what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def stimuli(count: int) -> StimulusSet:
    texts = [f"{number}cat" for number in range(count)]
    return StimulusSet(
        "many",
        pd.DataFrame(
            {
                "text": texts,
                "target_start": [len(text) - 3 for text in texts],
                "target_end": [len(text) for text in texts],
                "item": "cat",
                "frame": "f",
                "category": "c",
            }
        ),
    )


def main() -> None:
    torch.set_num_threads(1)
    streaming.IN_FLIGHT = IN_FLIGHT
    passes.batch_tokens = lambda _device: 128  # a forward pass takes a few MB
    model = Model.load(find_source(sys.argv[1]), device="cpu")

    few, many = (
        Recording(model.source, stimuli(count), ("resid_post",), "last", "float32")
        for count in (500, ROWS)
    )

    def recorded(plan: Recording) -> Path:
        return record(plan, Path(sys.argv[2]), lambda: model, protocol_sha256="0" * 64)

    recorded(few)  # what a forward pass and the libraries take, once and for all
    before = forget()
    path = recorded(many)
    taken = resident("VmHWM") - before
    volume = open_volume(path)
    before = forget()
    layer = volume["resid_post"].isel(layer=1).to_numpy()
    reading = resident("VmHWM") - before
    found = {
        "volume": volume["resid_post"].nbytes,
        "in_flight": IN_FLIGHT,
        "layer": layer.nbytes,
        "recording": taken,
        "reading": reading,
    }
    print(json.dumps(found))


main()
