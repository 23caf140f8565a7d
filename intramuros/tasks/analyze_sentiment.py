"""How the author of a text feels."""

from intramuros.task import Flow, choose, document, task
from intramuros.types import Choice

SENTIMENTS = ("positive", "negative", "neutral", "mixed")


@task
def analyze_sentiment(content: str) -> Flow[Choice | None]:
    """Say how the author feels: positive, negative, neutral or mixed."""
    if not content.strip():
        return None
    prompt = document(
        content,
        "You judge the sentiment of a text, in any language.",
        "How does the author feel about the subject of the text?",
    )
    return (yield from choose(prompt, SENTIMENTS))
