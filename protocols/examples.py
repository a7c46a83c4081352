"""Examples that the help of each command ends with. A test reads each as the command line would."""

from collections.abc import Mapping

# Of each command, lines that can be typed and what each is for; of none, of `scan` itself.
EXAMPLES: Mapping[str, Mapping[str, str]] = {
    "": {
        "scan new mine": "a protocol to start from, mine.yaml",
        "scan protocols/quickstart.yaml": "all steps; the report is in results/quickstart",
        "scan protocols/quickstart.yaml --dry-run": "what would be recorded",
        "scan protocols/direction_not_region.yaml --quick": "a look at less of it; no findings",
    },
    "new": {
        "scan new mine": "writes mine.yaml",
        "scan new studies/colours --subject gemma3-270m": "about another model, in a folder",
    },
    "check": {
        "scan check mine.yaml": "is anything wrong with it, and what does it cost?",
        "scan check mine.yaml --teraflops 40": "how long on a machine that is faster",
        "scan check mine.yaml --json": "the same for a script",
    },
    "list": {
        "scan list": "all that a protocol can name",
        "scan list controls": "one kind",
        "scan list analyses --json": "for a script",
    },
    "doctor": {
        "scan doctor": "what this machine can do",
        "scan doctor --results /data/results --json": "of another folder, for a script",
    },
    "phantom": {
        "scan phantom": "the best device there is, in float32",
        "scan phantom --device cpu --dtype bfloat16": "another, or another dtype",
    },
    "subjects": {
        "scan subjects smollm2-135m-instruct": "its sites, where they are, what they cost",
        "scan subjects owner/name --dtype bfloat16": "a model of the hub, in half the memory",
    },
    "compare": {
        "scan compare smollm2-135m-instruct gemma3-270m": "layer by layer, on words of concepts",
        "scan compare base tuned --stimuli mine.csv": "two folders, on texts of your own",
    },
    "suggest": {
        "scan suggest results/medical_map": "for every domain that the map has layers for",
        "scan suggest results/medical_map --category drugs --layers 7 8": "layers of your own",
    },
    "questions": {
        "scan questions arc_easy --out arc.csv": "a task of lm-evaluation-harness, as stimuli",
    },
    "register": {
        "scan register mine.yaml": "before anything is recorded",
        "scan register mine.yaml --export osf": "what the form of a registry asks for",
    },
    "record": {
        "scan record mine.yaml": "goes on where it was interrupted",
        "scan record mine.yaml --cluster local:4": "four processes, each with a subject",
        "scan record mine.yaml --cluster tcp://10.0.0.1:8786": "the workers of a dask scheduler",
    },
    "analyse": {"scan analyse mine.yaml": "after `scan record`"},
    "judge": {"scan judge mine.yaml": "after `scan record`"},
    "report": {"scan report mine.yaml": "writes results/mine/report.html anew"},
    "ledger": {
        "scan ledger": "everything that was registered below results/",
        "scan ledger --results /data/results --json": "of another folder, for a script",
    },
    "trace": {
        "scan trace results/quickstart decodable": "from a verdict back to weights and stimuli",
    },
    "verify": {
        "scan verify results/quickstart": "digests and verdicts, from what was recorded",
        "scan verify results/quickstart --rerun": "recorded anew, too",
    },
    "export": {
        "scan export results/quickstart --to quickstart-export": "tables, RDMs, graphs",
        "scan export results/mine --to shared --license CC0-1.0": "with a licence of your own",
    },
    "calibrate": {
        "scan calibrate": "as published, in hours",
        "scan calibrate probe.auc rsa.similarity": "two measures; the rows of others stand",
        "scan calibrate --studies 20 --planted 10 --seeds 5": "a first look",
    },
    "--install-completion": {
        "scan --install-completion": "of the shell that you are in",
        "scan --install-completion --shell zsh --output ~/.zfunc/_scan": "to a file of your own",
    },
}  # fmt: skip
STATUSES = (
    "Exit status: 0, done; 1, a mistake that is said in one line with its mend; 2, a command line "
    "that cannot be read; 130, interrupted: the same command goes on."
)


def shown(command: str) -> str:
    """The examples of a command for its help, in Markdown; of `scan`, what exit statuses mean, too.

    Parameters
    ----------
    command : str
        Its name; empty for `scan` itself.
    """
    lines = [f"- `{line}`: {what}" for line, what in EXAMPLES[command].items()]
    statuses = "" if command else f"\n\n{STATUSES}"
    return "Examples:\n\n" + "\n".join(lines) + statuses
