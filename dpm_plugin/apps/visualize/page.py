"""index.html: all queries on one self-contained page to leaf through."""

import base64
import hashlib
from html import escape

from dpm_plugin.apps.visualize.page_assets import SCRIPT, STYLE
from dpm_plugin.apps.visualize.pictures import data_uri, overlay_attention, overlay_drivers
from dpm_plugin.apps.visualize.words import (
    OUTCOMES,
    attention_note,
    channel_title,
    drivers_note,
    facts,
    file_name,
    head_title,
    match_title,
    ranking_note,
    ranking_title,
)


def query_section(view, picture, gallery, topk, drivers):
    """One query as HTML; arguments as :func:`dpm_plugin.apps.visualize.figure.draw_query`."""
    parts = [panel("query", "Query", [tile(picture, file_name(view.path))])]
    if view.channels:
        parts.append(
            panel(
                "maps",
                "The mask's highest channels",
                [
                    tile(
                        overlay_drivers(picture, channel.drivers),
                        f"What drives channel {channel.number}",
                        channel_title(channel),
                    )
                    for channel in view.channels
                ],
                drivers_note(drivers),
            )
        )
    parts.append(
        panel(
            "maps",
            "Class-token attention of the last block",
            [
                tile(overlay_attention(picture, values), f"Attention of head {number + 1}", head_title(number, view))
                for number, values in enumerate(view.attention)
            ],
            attention_note(view),
        )
    )
    sides = [side for side in (view.off, view.on) if side is not None]
    lists = "".join(_ranked_list(view, side, gallery, topk) for side in sides)
    word = f'<b class="outcome {view.outcome}">{OUTCOMES[view.outcome]}</b>' if view.outcome else ""
    known = "".join(f"<li>{escape(fact)}</li>" for fact in facts(view))
    name = escape(file_name(view.path))
    return (
        f'<article id="q{view.position + 1}" data-outcome="{view.outcome or ""}">\n'
        f'<h2>Query {view.position + 1} <span class="file">{name}</span> {word}</h2>\n'
        f'<ul class="facts">{known}</ul>\n'
        f'<div class="panels">{"".join(parts)}</div>\n<div class="lists">{lists}</div>\n</article>\n'
    )


def panel(kind, title, tiles, note=""):
    """A framed row of tiles; ``kind`` is its class, title and note are plain text."""
    note = f"<p>{escape(note)}</p>" if note else ""
    tiles = f'<div class="tiles">{"".join(tiles)}</div>'
    return f'<section class="{kind}"><h3>{escape(title)}</h3>{note}{tiles}</section>\n'


def tile(picture, alt, caption=""):
    """A PIL image with alternative text and caption, both plain text."""
    caption = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{data_uri(picture)}" alt="{escape(alt)}">{caption}</figure>'


def _ranked_list(view, side, gallery, topk):
    items = []
    for index, position in enumerate(side.order[:topk]):
        path, picture = gallery(position)
        kind = "right" if side.right[index] else "wrong"
        items.append(
            f'<li class="{kind}"><figure><img src="{data_uri(picture)}" title="{escape(file_name(path))}" '
            f'alt="rank {index + 1}, {kind} match">'
            f"<figcaption>{escape(match_title(view, side, index))}</figcaption></figure></li>"
        )
    title, note = ranking_title(side is view.on, view.on is not None), ranking_note()
    return f'<section class="list"><h3>{escape(title)}</h3><p>{escape(note)}</p><ol>{"".join(items)}</ol></section>\n'


def page(sections, outcomes, title, intro, rows):
    """The whole page.

    Args:
        sections: texts of :func:`query_section`.
        outcomes: their outcomes, for the filter; all None hides it.
        title: of the page, plain text.
        intro: plain text above the queries.
        rows: [(name, rank-1, mAP), ...] of the evaluation, shares; empty leaves the table out.

    Returns:
        the text of index.html. It loads nothing: its content security policy forbids it.
    """
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(STYLE)}'; "
        f"script-src '{_digest(SCRIPT)}'; base-uri 'none'; form-action 'none'"
    )
    body = "".join(f"<tr><th scope=row>{escape(name)}<td>{rank1:.1%}<td>{mAP:.1%}" for name, rank1, mAP in rows)
    table = f"<table><thead><tr><th scope=col>row<th scope=col>rank-1<th scope=col>mAP<tbody>{body}</table>"
    return f"""<!doctype html>
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


def _filters(outcomes):
    if not any(outcomes):
        return ""
    buttons = [f'<button type="button" data-filter="all" aria-pressed="true">all {len(outcomes)}</button>']
    buttons += [
        f'<button type="button" data-filter="{name}" aria-pressed="false">{label} {outcomes.count(name)}</button>'
        for name, label in (("helped", "mask helped"), ("hurt", "mask hurt"), ("same", "same"))
    ]
    return f'<div class="filters" role="group" aria-label="Show">{"".join(buttons)}</div>\n'


def _digest(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
