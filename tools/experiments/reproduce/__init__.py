"""The paper's tables and figures from runs of ``tools/main.py``; started by ``tools/reproduce.py``.

``run`` names one training run and finds its folder, ``sweep`` trains what is missing. ``setting``,
``tables`` and ``budgets`` say which runs a table needs, ``published`` holds the paper's values, ``measured``
reads the runs' results, ``report`` and ``plots`` write them down, ``make`` puts it all together.
``attention`` draws Figures 3 and 4; ``occlusion`` the curve over the hidden share of the query, from queries
that ``redrawn`` draws anew.
"""
