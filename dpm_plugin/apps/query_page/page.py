"""Articles as the text of one HTML page to leaf through; without its script, all queries stand one below the other."""

import base64
import hashlib
import io
from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

from dpm_plugin.apps.query_page.article import OUTCOMES, Article, Panel, Tile

STYLE, SCRIPT = ((files(__package__) / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
KINDS = {True: "right", False: "wrong", None: "any"}  # of a ranked image, as classes of the style
Row = tuple[str, float, float]  # name, rank-1 and mAP of an evaluation, shares from 0 to 1


def page(articles: Iterable[Article], title: str, intro: str, rows: Sequence[Row] = (), beside: bool = False) -> str:
    """The text of the page. It loads nothing: its content security policy forbids it.

    Args:
        articles: taken one by one, so that a generator need not keep their images.
        title, intro: of the page, above the articles.
        rows: of the table of an evaluation. Default: none, and no table.
        beside: whether ranked lists stand side by side where there is room. Default: False.
    """
    sections, outcomes = [], []
    for article in articles:
        sections.append(_section(article, "lists beside" if beside else "lists"))
        outcomes.append(article.outcome)
    body = "".join(f"<tr><th scope=row>{escape(name)}<td>{rank1:.1%}<td>{mAP:.1%}" for name, rank1, mAP in rows)
    table = f"<table><thead><tr><th scope=col>row<th scope=col>rank-1<th scope=col>mAP<tbody>{body}</table>"
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(STYLE)}'; "
        f"script-src '{_digest(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    text = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}</style>
<header><h1>{escape(title)}</h1>
<details><summary>What is shown</summary>
<p>{escape(intro)}</p>
{table if rows else ""}
</details></header>
<nav hidden aria-label="Queries">
{_filters(outcomes)}<div class="steps"><button type="button" id="previous" aria-keyshortcuts="ArrowLeft">\
<span aria-hidden="true">\N{LEFTWARDS ARROW}</span> previous</button>
<output id="place" aria-live="polite"></output>
<button type="button" id="next" aria-keyshortcuts="ArrowRight">next <span aria-hidden="true">\
\N{RIGHTWARDS ARROW}</span></button></div></nav>
<main>
{"".join(sections)}<p id="none" hidden>No query here.</p>
</main>
<script>{SCRIPT}</script>
</html>
"""
    return text.encode("utf-8", "replace").decode("utf-8")  # file names may hold what no encoding has


def figure(tile: Tile) -> str:
    """A tile as HTML, its image inside as JPEG."""
    buffer = io.BytesIO()
    tile.image.save(buffer, format="JPEG", quality=85)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    title = f' title="{escape(tile.name)}"' if tile.name else ""
    caption = f"<figcaption>{escape(tile.caption)}</figcaption>" if tile.caption else ""
    return f'<figure><img src="data:image/jpeg;base64,{data}"{title} alt="{escape(tile.alt)}">{caption}</figure>'


def _section(article: Article, lists: str) -> str:
    outcome = article.outcome
    word = f' <b class="outcome {outcome}">{OUTCOMES[outcome]}</b>' if outcome else ""
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in article.facts)
    return f"""<article id="q{article.number}" data-outcome="{outcome or ""}">
<h2>Query {article.number} <span class="file">{escape(article.name)}</span>{word}</h2>
{f'<ul class="facts">{facts}</ul>' if facts else ""}
<div class="panels">{"".join(map(_panel, article.panels))}</div>
<div class="{lists}">{"".join(map(_panel, article.lists))}</div>
</article>
"""


def _panel(panel: Panel) -> str:
    note = f"<p>{escape(panel.note)}</p>" if panel.note else ""
    if panel.kind == "list":
        tiles = "".join(f'<li class="{KINDS[tile.right]}">{figure(tile)}</li>' for tile in panel.tiles)
        tiles = f"<ol>{tiles}</ol>"
    else:
        tiles = f'<div class="tiles">{"".join(map(figure, panel.tiles))}</div>'
    return f'<section class="{panel.kind}"><h3>{escape(panel.title)}</h3>{note}{tiles}</section>\n'


def _filters(outcomes: Sequence[str | None]) -> str:
    if not any(outcomes):
        return ""
    counts = {"all": ("all", len(outcomes))} | {key: (text, outcomes.count(key)) for key, text in OUTCOMES.items()}
    buttons = "".join(
        f'<button type="button" data-filter="{key}" aria-pressed="{str(key == "all").lower()}">{text} {count}</button>'
        for key, (text, count) in counts.items()
    )
    return f'<div class="filters" role="group" aria-label="Show">{buttons}</div>\n'


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
