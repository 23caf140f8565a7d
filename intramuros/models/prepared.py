"""What an engine is given to load: weights that were verified and put into its form."""

from pathlib import Path

import msgspec


class Prepared(msgspec.Struct, frozen=True):
    """Prepared weights of a card, in the store.

    `gguf` is the file the other forms were made from (rewritten where an engine could not read the
    original), so every engine that loads this value has the same weights. `openvino` is the folder
    with `openvino_model.xml`, tokenizer and detokenizer.
    `digest` is the SHA-256 of the manifest of `gguf`: it stands in every answer.
    """

    card: str
    digest: str
    gguf: Path
    openvino: Path
    template: str  # a name in prompt.template.TEMPLATES
    context: int  # longest the card was trained for, in tokens
