"""What a model goes on to say while something is done to it."""

from collections.abc import Sequence

import torch
from transformers import GenerationConfig

from scanner.interventions import Edit
from scanner.model import Model

# Of a byte-level tokenizer any byte may be the likeliest; files and pages hold no such characters.
PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421}


def continued(
    model: Model, ids: Sequence[int], done: Sequence[tuple[Edit, ...]], *, tokens: int
) -> list[str]:
    """Continue a text by the likeliest token, again and again, under each of some interventions.

    Parameters
    ----------
    model : Model
    ids : sequence of int
        The text, in tokens.
    done : sequence of tuple of Edit
        Of each continuation, without rows. Edits without positions act on the tokens that are
        added, too.
    tokens : int
        How many are added, unless the model ends the text before.

    Returns
    -------
    list of str
        What is added, without special tokens. Control characters other than tabs and ends of lines
        are shown as their pictures (Unicode's U+2400 and on).

    Raises
    ------
    SiteError
        If an edit does not fit the model or moves nothing.
    """
    batch = model.batch([list(ids)] * len(done))
    edits = [edit.having(rows=(row,)) for row, some in enumerate(done) for edit in some]
    known = model.network.generation_config
    settings = GenerationConfig(
        max_new_tokens=tokens, do_sample=False, pad_token_id=model.filler,
        eos_token_id=None if known is None else known.eos_token_id,
    )  # fmt: skip
    with torch.inference_mode(), model.intervene(edits):
        said = model.network.generate(
            batch.ids, attention_mask=batch.mask, generation_config=settings
        )
    return [
        model.tokenizer.decode(row[len(ids) :], skip_special_tokens=True).translate(PICTURES)
        for row in said.tolist()
    ]
