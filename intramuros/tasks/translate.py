"""A text in another language."""

from intramuros.errors import BadArgument
from intramuros.prompt.parts import margins, parts
from intramuros.prompt.template import unfenced
from intramuros.task import Flow, document, task, together
from intramuros.types import Ask, Say

PART = 1500
"""Characters translated in one go: small models lose the thread in longer ones."""

LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish",
    "de": "German", "el": "Greek", "en": "English", "es": "Spanish", "et": "Estonian",
    "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean",
    "lt": "Lithuanian", "lv": "Latvian", "nb": "Norwegian", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak",
    "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip


@task
def translate(content: str, to_lang: str) -> Flow[str]:
    """Translate a text; `to_lang` is a code such as `fr` or `pt-BR`, or a language's name.

    Long texts are translated by paragraphs, together; line breaks between them are kept.
    """
    if not to_lang.strip():
        raise BadArgument("to_lang is empty", hint="give a language such as 'fr' or 'French'")
    instruction = (
        f"Translate the text of the document into {language(to_lang)}. Keep names, numbers, line "
        "breaks and formatting. Answer with the translation alone, without tags or comments."
    )
    framed = [margins(part) for part in parts(content, PART)]
    asks: list[Ask] = [
        Say(document(core, instruction, layout="document_first"), max_tokens=64 + 2 * len(core))
        for _, core, _ in framed
        if core
    ]
    replies = iter((yield from together(asks)))
    return "".join(
        before + (unfenced(next(replies)) if core else "") + after for before, core, after in framed
    )


def language(code: str) -> str:
    """The English name of a language code, its region in brackets; other texts stay as they are."""
    base, _, region = code.strip().replace("_", "-").partition("-")
    if name := LANGUAGES.get(base.lower()):
        return f"{name} ({region.upper()})" if region else name
    return code.strip()
