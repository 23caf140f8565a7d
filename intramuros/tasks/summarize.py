"""A text in fewer words."""

from intramuros.errors import AskFailed, BadArgument
from intramuros.prompt.parts import parts
from intramuros.prompt.template import unfenced
from intramuros.task import Flow, document, say, task, together
from intramuros.types import Failure, Say

NOTE_TOKENS = 200
FILLED = 0.6
"""Share of the window that one part may take; the rest is for instruction and notes."""


@task
def summarize(content: str, max_words: int = 50) -> Flow[str]:
    """Summarize a text in about `max_words` words; 0 sets no limit.

    A text longer than the model's window is read by parts, and their notes are summarized.
    """
    if max_words < 0:
        raise BadArgument(f"max_words is {max_words}", hint="give 0 (no limit) or more")
    if not content.strip():
        return ""
    length = f" in at most {max_words} words" if max_words else ""
    instruction = (
        f"Summarize the text of the document{length}, in the language of the document. "
        "Answer with the summary alone."
    )
    max_tokens = max(256, max_words * 6) if max_words else 2048
    text = content
    while True:
        try:
            prompt = document(text, instruction, layout="document_first")
            return unfenced((yield from say(prompt, max_tokens=max_tokens)))
        except AskFailed as error:
            if error.failure.kind != "too_long":
                raise
            text = yield from _notes(text, error.failure)


def _notes(text: str, too_long: Failure) -> Flow[str]:
    """The main points of each part of a text that the window could not hold."""
    tokens, limit = too_long.tokens or len(text), too_long.limit or 1
    size = max(200, int(len(text) * limit / tokens * FILLED))
    instruction = (
        "Note the main points of this part of a longer text, briefly, in its own language."
    )
    asks = [
        Say(document(part, instruction), max_tokens=NOTE_TOKENS, truncate=True)
        for part in parts(text, size)
    ]
    if len(asks) < 2:
        raise AskFailed(too_long)
    replies = yield from together(list(asks))
    return "\n\n".join(reply.strip() for reply in replies)
