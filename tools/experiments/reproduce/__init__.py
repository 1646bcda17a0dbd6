"""The paper's tables and figures from runs of ``tools/main.py``; started by ``tools/reproduce.py``.

``setting`` and ``tables`` say which runs a table needs, ``published`` holds the paper's values, ``measured`` reads
the runs' results, ``report`` and ``plots`` write them down, ``make`` puts it all together. ``attention`` measures
Figures 3 and 4 and ``attention_report`` draws them; ``occlusion`` and ``occlusion_report`` make the curve over the
hidden share of the query, from queries that ``redrawn`` draws anew.
"""
