"""A script: record on a disk that is full, then on one that is read-only; Linux only.

``unshare -rm python fill_disk.py MODEL STIMULI PROTOCOL FOLDER`` puts a small file system of its
own on FOLDER, which nobody else sees and which ends with it. It prints one JSON object a line:

    {"step": "full", "size": 64, "status": 1, "errno": 28, "said": "…"}
"""

import json
import os
import subprocess
import sys
import traceback
from functools import cache
from pathlib import Path

from protocols.cli import main as scan
from scanner import Model, Recording, Source, find_source, record
from scanner.volume import digest_file
from stimuli import load


def mount(options: str, folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)


def report(step: str, **facts: object) -> None:
    print(json.dumps({"step": step, **facts}), flush=True)


def command(step: str, protocol: Path, results: Path) -> None:
    """`scan record`, in a process of its own that need not import everything again."""
    said = Path(f"{protocol}.said")
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
            sys.argv = ["scan", "record", str(protocol), "--results", str(results)]
            scan()
        except SystemExit as end:
            os._exit(int(end.code or 0))
        except BaseException:
            traceback.print_exc()
            os._exit(70)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    report(step, status=status, said=said.read_text())


def attempt(step: str, plan: Recording, volumes: Path, **facts: object) -> bool:
    """`record`, in this process; whether it came to its end."""
    try:
        path = record(plan, volumes, lambda: model(plan), protocol_sha256="0" * 64)
    except OSError as error:
        report(step, errno=error.errno, said=str(error), **facts)
        return False
    report(step, errno=0, said=digest_file(path).read_text().strip(), **facts)
    return True


@cache
def trained(source: Source) -> Model:
    return Model.load(source, device="cpu")


def model(plan: Recording) -> Model:
    loaded = trained(plan.source)
    return loaded if plan.seed is None else loaded.twin(plan.seed)


def main() -> None:
    source, stimuli = find_source(sys.argv[1]), load(sys.argv[2])
    protocol, folder = Path(sys.argv[3]), Path(sys.argv[4])

    mount("size=64k", folder)
    command("command, full", protocol, folder)
    mount("remount,size=16m", folder)
    command("command, with room", protocol, folder)
    mount("remount,ro", folder)
    another = protocol.with_name("another.yaml")
    another.write_text(protocol.read_text().replace("study: ", "study: another-"))
    command("command, read-only", another, folder)

    plan = Recording(source, stimuli, ("resid_post",), "target", "float32")
    attempt("undisturbed", plan, protocol.with_name("undisturbed"))
    mount("size=32k", folder)
    size = 32
    while not attempt("full", plan, folder, size=size):
        size += 32
        mount(f"remount,size={size}k", folder)

    digest_file(plan.path(folder)).unlink()
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 512):
                pass
        except OSError:
            pass
    attempt("full at the last step", plan, folder)
    filler.unlink()
    attempt("with room at the last step", plan, folder)

    mount("remount,ro", folder)
    attempt("read-only, there", plan, folder)
    twin = Recording(source, stimuli, ("resid_post",), "target", "float32", 0)
    attempt("read-only", twin, folder)


main()
