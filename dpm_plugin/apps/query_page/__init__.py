"""One self-contained HTML page with an article a query, which visualize and image_index write."""

from dpm_plugin.apps.query_page.article import OUTCOMES, Article, Panel, Tile
from dpm_plugin.apps.query_page.page import page
from dpm_plugin.apps.query_page.parts import parts_panel, percentages

__all__ = ["OUTCOMES", "Article", "Panel", "Tile", "page", "parts_panel", "percentages"]
