"""On the same prepared weights two engines give the same probabilities, or the gap is told."""

import pytest

from intramuros.task import document
from intramuros.types import Choose
from tests.contract.conftest import Load, Replies

SUBJECTS = (
    "the soup", "the train", "our teacher", "this lamp", "the new version", "le serveur",
    "la chambre", "the coat", "their answer", "le colis",
)  # fmt: skip
JUDGEMENTS = (
    "{} was a wonderful surprise.",
    "{} was a waste of money.",
    "{} came on Tuesday.",
    "I would ask for {} again any day.",
    "{} : je ne recommande pas.",
)
SENTENCES = [
    judgement.format(subject).capitalize() for subject in SUBJECTS for judgement in JUDGEMENTS
]

NEAR = 0.02

FAR = {"smollm2-135m": 0.06, "qwen2.5-coder-0.5b": 0.08, "qwen2.5-coder-1.5b": 0.08}
"""The largest gap allowed to a row, where llama.cpp's own noise is larger than NEAR: it rounds what
a layer reads to 8 bits, while openvino reads it in 32."""


CARDS = ("smollm2-135m", pytest.param("qwen2.5-coder-0.5b", marks=pytest.mark.slow))


@pytest.mark.parametrize("prepared", CARDS, indirect=True, scope="module")
def test_two_engines_agree(load: Load) -> None:
    asks = [
        Choose(
            document(sentence, "Judge the document.", "How does the author feel?"),
            ("positive", "negative", "neutral"),
        )
        for sentence in SENTENCES
    ]
    assert len(set(SENTENCES)) == 50
    one, other = load("llamacpp"), load("openvino")
    replies = Replies(one, asks), Replies(other, asks)
    gaps = []
    for row in range(len(asks)):
        mine, theirs = (reply.choice(row).probabilities for reply in replies)
        gaps.append(max(abs(mine[option] - theirs[option]) for option in mine))
    near = sum(gap <= NEAR for gap in gaps)
    print(
        f"{one.card}: {near} of 50 rows within {NEAR}, "
        f"mean gap {sum(gaps) / len(gaps):.4f}, largest {max(gaps):.4f}"
    )
    assert sum(gaps) / len(gaps) <= FAR[one.card] / 2
    assert max(gaps) <= FAR[one.card]
