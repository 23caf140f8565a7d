"""Rows for the benchmarks: from a file, or made from our own words; seeded, so they repeat."""

import csv
import itertools
import json
import random
from pathlib import Path
from typing import Any

SUBJECTS = (
    "The delivery", "My new lamp", "The kitchen table", "Your support team", "The oak shelf",
    "This invoice", "The blue armchair", "The assembly manual", "The online shop", "The courier",
    "La livraison", "Ma nouvelle lampe", "La table de cuisine", "Votre service client",
    "L'étagère en chêne", "Cette facture", "Le fauteuil bleu", "La notice de montage",
    "La boutique en ligne", "Le livreur",
)  # fmt: skip
ENGLISH = (
    "was a delight from the first minute", "came two weeks late and broken",
    "is fine, nothing more", "is the best purchase I made this year",
    "cost me an evening and all my patience",
    "will be checked again on Monday", "looked better on the picture than in my room",
    "surprised everybody in the house, in a good way", "never answered a single message of mine",
    "can be changed until Friday at noon", "deserves a medal", "made me send everything back",
    "is made of oak and weighs eight kilos", "works, but the noise drives me mad",
    "was exactly as described", "ruined my daughter's birthday", "saved our weekend",
    "is mentioned on page three", "feels cheap and smells of glue", "could not have been kinder",
)  # fmt: skip
FRENCH = (
    "a été un plaisir dès la première minute", "est arrivée en retard et cassée",
    "est correcte, sans plus", "est le meilleur achat de mon année",
    "m'a coûté une soirée et toute ma patience", "sera vérifiée de nouveau lundi",
    "était plus belle sur la photo que chez moi", "a surpris toute la maison, en bien",
    "n'a jamais répondu à un seul de mes messages", "peut être modifiée jusqu'à vendredi midi",
    "mérite une médaille", "m'a obligé à tout renvoyer", "pèse huit kilos",
    "fonctionne, mais le bruit me rend fou", "était exactement conforme à la description",
    "a gâché l'anniversaire de ma fille", "a sauvé notre week-end", "est mentionnée en page trois",
    "fait bas de gamme et sent la colle", "n'aurait pas pu être plus aimable",
)  # fmt: skip


def own_sentences(count: int) -> list[str]:
    """Up to 400 distinct sentences, half English and half French, in a seeded order."""
    english = itertools.product(SUBJECTS[:10], ENGLISH)
    french = itertools.product(SUBJECTS[10:], FRENCH)
    sentences = [f"{subject} {rest}." for subject, rest in (*english, *french)]
    random.Random(7).shuffle(sentences)
    return sentences[:count]


def texts(path: Path | None, column: str, count: int, seed: int = 7) -> list[str]:
    """`count` distinct texts of a column, sampled with a seed; our own sentences without a file."""
    if path is None:
        return own_sentences(count)
    found = list(dict.fromkeys(str(record[column]) for record in records(path)))
    random.Random(seed).shuffle(found)
    return found[:count]


def records(path: Path) -> list[dict[str, Any]]:
    """Rows of a csv or JSON lines file."""
    with path.open(encoding="utf-8", newline="") as lines:
        if path.suffix == ".csv":
            return list(csv.DictReader(lines))
        return [json.loads(line) for line in lines]
