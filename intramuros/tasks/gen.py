"""Text that answers a prompt."""

from intramuros.task import Flow, conversation, say, task


@task
def gen(prompt: str) -> Flow[str | None]:
    """Answer a prompt with text."""
    if not prompt.strip():
        return None
    return (yield from say(conversation(prompt)))
