"""Forty invoices of our own, half French and half English, with the fields that stand in them."""

import random
from typing import NamedTuple

COMPANIES = (
    "Dupont SARL", "Atelier Lenoir", "Boulangerie Petit & Fils", "Garage Moreau SA",
    "Verre et Bois SAS", "Northwind Supplies Ltd", "Baker & Sons", "Harbour Lights Inc.",
    "Oakridge Timber Co.", "Green Valley Dairy",
)  # fmt: skip
MONTHS = (
    ("janvier", "January"), ("mars", "March"), ("mai", "May"), ("juillet", "July"),
    ("septembre", "September"), ("décembre", "December"),
)  # fmt: skip
FRENCH = (
    "Facture {number}, {company}, {amount}, échéance le {due}",
    "{company}\nFacture n° {number}\nMontant total TTC : {amount}\nÀ régler avant le {due}.",
    "Bonjour, veuillez trouver ci-joint la facture {number} de {company}, "
    "d'un montant de {amount}. "
    "Le paiement est attendu pour le {due}. Cordialement, le service comptable.",
    "Objet : relance. La facture {number} émise par {company} reste impayée. Somme due : {amount}. "
    "Date limite de paiement : {due}.",
)
ENGLISH = (
    "Invoice {number}, {company}, {amount}, due {due}",
    "{company}\nInvoice no. {number}\nTotal including tax: {amount}\nPlease pay by {due}.",
    "Hello, please find attached invoice {number} from {company} for {amount}. "
    "Payment is expected by {due}. Kind regards, the accounts team.",
    "Subject: reminder. Invoice {number} issued by {company} is still open. Amount owed: {amount}. "
    "Last day of payment: {due}.",
)
FIELDS = ("number", "company", "amount", "due")


class Invoice(NamedTuple):
    language: str
    text: str
    fields: dict[str, str]


def invoices(count: int = 40, seed: int = 11) -> list[Invoice]:
    """Seeded invoices; every field stands in the text exactly as it is given here."""
    chance = random.Random(seed)
    made = []
    for index in range(count):
        french = index % 2 == 0
        month = chance.choice(MONTHS)[0 if french else 1]
        day, year = chance.randint(1, 28), chance.randint(2025, 2027)
        euros, cents = chance.randint(20, 9999), chance.randint(0, 99)
        fields = {
            "number": chance.choice(["{}", "F-{}", "2026/{}", "INV{}"]).format(
                chance.randint(1000, 99999)
            ),
            "company": chance.choice(COMPANIES),
            "amount": f"{euros:,}".replace(",", " ") + f",{cents:02d} EUR"
            if french
            else f"${euros:,}.{cents:02d}",
            "due": f"{day} {month} {year}" if french else f"{month} {day}, {year}",
        }
        template = chance.choice(FRENCH if french else ENGLISH)
        made.append(Invoice("fr" if french else "en", template.format(**fields), fields))
    return made
