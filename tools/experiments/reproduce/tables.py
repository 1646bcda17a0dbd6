"""Which runs each table and figure of the paper needs, and which published values stand beside them."""

from typing import NamedTuple

from experiments.reproduce.published import (
    FIGURE5_TEXT,
    TABLE1,
    TABLE2,
    TABLE3,
    TABLE4,
    TABLE5,
    Published,
    alpha_value,
    beta_value,
)
from experiments.reproduce.setting import SYNTHETIC

STOCK_MODELS = ("osnet_x1_0", "resnet50", "pcb_p6", "mlfn")


class Row(NamedTuple):
    """One line: its name, one run per seed (none for a published line) and the paper's values, or None."""

    name: str
    runs: tuple
    published: Published = None


class Table(NamedTuple):
    """A table: ``paper`` lists the headings of the published values, ``notes`` what a reader must know.

    For a figure, ``axes`` maps each swept setting to {value: row name}.
    """

    what: str
    title: str
    rows: tuple
    paper: tuple
    notes: tuple = ()
    axes: dict = {}

    def runs(self):
        return [run for row in self.rows for run in row.runs]


_DUKE = tuple(f"Occluded-Duke {metric}" for metric in ("R-1", "R-5", "R-10", "mAP"))


def full(setting):
    """DPM as the config has it, with its head enrich loss (the paper's weight where the config has none)."""
    return setting.runs(changes=_hem(setting) | _hierarchy(setting))


def without_hem(setting):
    """ "+DPM+HR": all mask blocks, no head enrich loss."""
    return setting.runs(changes={"loss.dpm.beta": 0.0} | _hierarchy(setting))


def _plus_dpm(setting, **losses):
    depth, _ = setting.architecture()
    changes = {"vit.mask_blocks": [depth], "loss.dpm.beta": 0.0}
    return setting.runs(changes=changes | {f"loss.dpm.{head}": kind for head, kind in losses.items()})


def _hem(setting):
    return {} if setting.config.loss.dpm.beta > 0 else {"loss.dpm.beta": 0.1}


def _hierarchy(setting):
    return {} if len(setting.config.vit.mask_blocks) != 1 else {"vit.mask_blocks": []}


def table3(setting):
    """Baseline, +DPM (mask from the last block), +HR (all mask blocks), +HEM."""
    depth, _ = setting.architecture()
    beta = full(setting)[0].config().loss.dpm.beta
    rows = (
        ("baseline", setting.runs(setting.baseline)),
        ("+DPM", _plus_dpm(setting)),
        ("+DPM+HR", without_hem(setting)),
        ("+DPM+HR+HEM", full(setting)),
    )
    notes = (
        f"+DPM: the mask generator sees the last block only (vit.mask_blocks [{depth}]), "
        "loss.dpm.beta is 0. "
        f"+HR: all mask blocks. +HEM: loss.dpm.beta {beta}.",
    )
    return Table("table3", "Table 3: what each part adds", tuple(Row(n, r, TABLE3[n]) for n, r in rows), _DUKE, notes)


def table4(setting):
    """Softmax (S) or angular margin (A) for either head."""
    losses = {"S": "softmax", "A": "margin"}
    rows = [
        Row(f"baseline {a}", setting.runs(setting.baseline, {"loss.dpm.cls": losses[a]}), TABLE4[f"baseline {a}"])
        for a in "SA"
    ]
    rows += [
        Row(f"DPM {a} {b}", _plus_dpm(setting, cls=losses[a], mask=losses[b]), TABLE4[f"DPM {a} {b}"])
        for a, b in ("SS", "AA", "SA")
    ]
    notes = (
        "S softmax, A angular margin; first letter: plain head, second: masked head. As in the paper, whose "
        "last row is +DPM of its Table 3, DPM has neither hierarchy nor head enrich loss here.",
    )
    return Table("table4", "Table 4: loss of either head", tuple(rows), _DUKE, notes)


def table5(setting):
    """What the mask multiplies, before or after the L2 normalisation."""
    # With renormalisation Pn computes what P does, to the last bit, and Pn + Fn what P + F does. So the P
    # rows share their runs with the renormalised ones, and in the Pn rows shortened prototypes stay short.
    variants = (("Pn", "Pn", False), ("Pn + Fn", "Pn+Fn", False), ("P", "Pn", True), ("P + F", "Pn+Fn", True))
    rows = []
    for name, variant, renormalise in variants:
        changes = {"loss.dpm.mask_variant": variant, "loss.dpm.mask_renormalise": renormalise}
        rows.append(Row(name, setting.runs(changes=_hem(setting) | _hierarchy(setting) | changes), TABLE5[name]))
    notes = (
        "n: the mask acts after the L2 normalisation and what it shortens stays short "
        "(loss.dpm.mask_renormalise False). The released implementation normalises again; a cosine does not "
        "see a row's length, so then Pn is the same computation as P, and Pn + Fn as P + F: "
        "rows P and P + F stand for both.",
    )
    return Table("table5", "Table 5: what the mask multiplies", tuple(rows), _DUKE, notes)


def default_alphas(config):
    """The paper's grid around its own alpha, else one around the config's."""
    own = config.loss.dpm.alpha
    return (0.1, 0.3, 0.5, 0.7, 0.9) if own == 0.5 else tuple(sorted({0.2, 0.35, 0.5, 0.65, 0.8, 0.9, own}))


def default_betas(config):
    """The paper's grid around its own beta, else one around the config's."""
    own = config.loss.dpm.beta or 0.005
    if own == 0.1:
        return (0.0, 0.05, 0.1, 0.15, 0.2)
    return tuple(round(own * factor, 10) for factor in (0, 0.5, 1, 2, 10, 20))


def figure5(setting, alphas=None, betas=None):
    """Sweep of alpha without head enrich loss, and of beta at the config's alpha."""
    config = setting.config
    rows, axes = {}, {"alpha": {}, "beta": {}}
    for alpha in alphas or default_alphas(config):
        changes = {"loss.dpm.alpha": alpha, "loss.dpm.beta": 0.0} | _hierarchy(setting)
        axes["alpha"][alpha] = name = f"α = {alpha:g}, β = 0"
        rows[name] = Row(name, setting.runs(changes=changes), alpha_value(alpha))
    for beta in betas or default_betas(config):
        axes["beta"][beta] = name = f"α = {config.loss.dpm.alpha:g}, β = {beta:g}"
        published = beta_value(beta) if config.loss.dpm.alpha == 0.5 else None
        run = setting.runs(changes={"loss.dpm.beta": beta} | _hierarchy(setting))
        rows[name] = Row(name, run, published or (rows[name].published if name in rows else None))
    notes = tuple(f"The paper on {text}" for text in FIGURE5_TEXT)
    return Table("figure5", "Figure 5: weights α and β of Eq. 8", tuple(rows.values()), _DUKE, notes, axes)


def comparison(what, setting, models, budgeted):
    """Tables 1 and 2: DPM beside its baseline, a TransReID-style one, torchreid's models, published rows.

    Args:
        what: "table1" or "table2".
        models: names of torchreid's models.
        budgeted: function (label, model, changes) -> one run per seed under the table's budget.
    """
    published, title = {"table1": (TABLE1, "Table 1: occluded data"), "table2": (TABLE2, "Table 2: holistic data")}[
        what
    ]
    _, patch = setting.architecture()
    stride = setting.config.vit.stride
    smallest = min(stride) if isinstance(stride, (list, tuple)) else stride
    overlap = stride if smallest < patch else patch * 3 // 4  # TransReID's own share: 12 of 16 pixels
    plain = {"vit.camera_embedding": False, "vit.stride": patch}
    transreid = {"vit.camera_embedding": True, "vit.stride": overlap}
    rows = [
        Row("DPM", setting.runs(), published["DPM"]),
        Row(
            "ViT baseline",
            budgeted(f"{setting.baseline}-plain", setting.baseline, plain),
            TABLE3["baseline"] if what == "table1" else None,
        ),
        Row(
            "TransReID style",
            budgeted(f"{setting.baseline}-transreid", setting.baseline, transreid),
            published["TransReID*"],
        ),
    ]
    rows += [
        Row(name, budgeted(name, name, {}), published["PCB"] if name.startswith("pcb_") else None) for name in models
    ]
    shown = {row.published.method for row in rows if row.published}
    rows += [Row(method, (), line) for method, line in published.items() if method not in shown]
    notes = (
        f"ViT baseline: no camera embedding, patches side by side (vit.stride {patch}). TransReID style: "
        f"camera embedding and overlapping patches (vit.stride {overlap}), no mask and no jigsaw branch. "
        "The paper's values are of pretrained models; a star marks methods that use the transformer.",
    )
    return Table(what, title, tuple(rows), tuple(published["DPM"].values), notes)


def holistic(setting):
    """Table 2's data: the drawn benchmark almost without occluders; other data as they are."""
    config = setting.config
    if SYNTHETIC not in config.data.sources + config.data.targets:
        return setting
    return setting.with_overrides(
        {"synthetic.train_occluded": 0.0, "synthetic.hidden_min": 0.05, "synthetic.hidden_max": 0.1}
    )
