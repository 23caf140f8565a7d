"""From asks to token ids, for one card: its template, its vocabulary, the tries of its options."""

from functools import lru_cache

from intramuros.errors import CannotDo
from intramuros.models.prepared import Prepared
from intramuros.prompt import template, trie, vocabulary
from intramuros.types import Choose, Failure, Fill, Say


class Encoder:
    """What every engine that takes token ids needs to know of prepared weights."""

    def __init__(self, prepared: Prepared) -> None:
        self._template = template.TEMPLATES[prepared.template]
        # part of an engine's identity
        self.wording = f"{self._template.name} {template.wording(self._template)}"
        self._vocabulary = vocabulary.read(prepared.gguf)
        self.controls = self._vocabulary.controls
        for token in (self._template.opening, self._template.end):
            if token not in self.controls:
                raise CannotDo(
                    f"the vocabulary of {prepared.card!r} has no {token!r}",
                    hint=f"its turns are not marked as the template {prepared.template!r} says",
                )
        self.opening = self.controls[self._template.opening]
        self.end = self.controls[self._template.end]
        self._pattern = template.control_pattern(self.controls)
        self.trie = lru_cache(64)(self._trie)

    def prompt(self, ask: Say | Choose | Fill, numbered: bool = False) -> list[int]:
        """Token ids of all that a model reads; raises UnicodeEncodeError on half a character."""
        return self._encode(template.render(ask, self._template, numbered))

    def text(self, text: str) -> list[int]:
        """Token ids of a text from outside."""
        return self._encode([template.Segment(text, control=False)])

    def _encode(self, segments: list[template.Segment]) -> list[int]:
        return template.encode(segments, self._pattern, self._vocabulary.encode_text, self.controls)

    def _trie(self, options: tuple[str, ...]) -> trie.Trie:
        return trie.build(options, self.text, self.end)


def too_long(tokens: int, limit: int) -> Failure:
    """The refusal of a prompt of more tokens than the window has room for."""
    return Failure(
        "too_long",
        f"the prompt has {tokens} tokens, and {limit} fit beside the answer",
        "shorten the text, or raise the setting context if the card allows it",
        tokens=tokens,
        limit=limit,
    )
