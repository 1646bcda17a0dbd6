"""Which runs each table and figure of the paper needs, and which published values stand beside them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from yacs.config import CfgNode

from dpm_plugin.apps.compare.run import Run
from dpm_plugin.models import PARTS
from experiments.reproduce import published
from experiments.reproduce.published import Published
from experiments.reproduce.setting import SYNTHETIC, Setting

STOCK_MODELS = ("osnet_x1_0", "resnet50", "pcb_p6", "mlfn")
# (label, model, changes to the config) -> one run a seed, under a table's budget.
Budgeted = Callable[[str, str, dict[str, object]], tuple[Run, ...]]


class Row(NamedTuple):
    """One line: its name, one run per seed (none for a published line) and the paper's values, or None."""

    name: str
    runs: tuple[Run, ...]
    published: Published | None = None


class Table(NamedTuple):
    """A table: ``paper`` lists the headings of the published values, ``notes`` what a reader must know.

    For a figure, ``axes`` maps each swept setting to {value: row name}.
    """

    what: str
    title: str
    rows: tuple[Row, ...]
    paper: tuple[str, ...] = published.DUKE
    notes: tuple[str, ...] = ()
    axes: dict[str, dict[float, str]] = {}

    def runs(self) -> list[Run]:
        return [run for row in self.rows for run in row.runs]


def full(setting: Setting) -> tuple[Run, ...]:
    """DPM as the config has it, with its head enrich loss (the paper's weight where the config has none)."""
    return setting.runs(changes=_hem(setting) | _hierarchy(setting))


def without_hem(setting: Setting) -> tuple[Run, ...]:
    """ "+DPM+HR": all mask blocks, no head enrich loss."""
    return setting.runs(changes={"loss.dpm.beta": 0.0} | _hierarchy(setting))


def _plus_dpm(setting: Setting, changes: dict[str, object]) -> tuple[Run, ...]:
    """ "+DPM": a mask from the last block only, no head enrich loss."""
    depth, _ = setting.architecture
    return setting.runs(changes={"vit.mask_blocks": [depth], "loss.dpm.beta": 0.0} | changes)


def _hem(setting: Setting) -> dict[str, object]:
    return {} if setting.config.loss.dpm.beta > 0 else {"loss.dpm.beta": 0.1}


def _hierarchy(setting: Setting) -> dict[str, object]:
    return {} if len(setting.config.vit.mask_blocks) != 1 else {"vit.mask_blocks": []}


def table3(setting: Setting) -> Table:
    """Baseline, +DPM (mask from the last block), +HR (all mask blocks), +HEM."""
    depth, _ = setting.architecture
    runs = {
        "baseline": setting.runs(setting.baseline),
        "+DPM": _plus_dpm(setting, {}),
        "+DPM+HR": without_hem(setting),
        "+DPM+HR+HEM": full(setting),
    }
    notes = (
        f"+DPM: the mask generator sees the last block only (vit.mask_blocks [{depth}]), loss.dpm.beta is 0. "
        f"+HR: all mask blocks. +HEM: loss.dpm.beta {full(setting)[0].config().loss.dpm.beta}.",
    )
    rows = tuple(Row(name, row, published.TABLE3[name]) for name, row in runs.items())
    return Table("table3", "Table 3: what each part adds", rows, notes=notes)


def table4(setting: Setting) -> Table:
    """Softmax (S) or angular margin (A) for either head."""
    losses = {"S": "softmax", "A": "margin"}
    runs = {f"baseline {a}": setting.runs(setting.baseline, {"loss.dpm.cls": losses[a]}) for a in "SA"}
    for a, b in ("SS", "AA", "SA"):
        runs[f"DPM {a} {b}"] = _plus_dpm(setting, {"loss.dpm.cls": losses[a], "loss.dpm.mask": losses[b]})
    notes = (
        "S softmax, A angular margin; first letter: plain head, second: masked head. As in the paper, whose "
        "last row is +DPM of its Table 3, DPM has neither hierarchy nor head enrich loss here.",
    )
    rows = tuple(Row(name, row, published.TABLE4[name]) for name, row in runs.items())
    return Table("table4", "Table 4: loss of either head", rows, notes=notes)


def table5(setting: Setting) -> Table:
    """What the mask multiplies, before or after the L2 normalisation."""
    # With renormalisation Pn computes what P does, to the last bit, and Pn + Fn what P + F does. So the P
    # rows share their runs with the renormalised ones, and in the Pn rows shortened prototypes stay short.
    variants = (("Pn", "Pn", False), ("Pn + Fn", "Pn+Fn", False), ("P", "Pn", True), ("P + F", "Pn+Fn", True))
    rows = []
    for name, variant, renormalise in variants:
        changes = {"loss.dpm.mask_variant": variant, "loss.dpm.mask_renormalise": renormalise}
        runs = setting.runs(changes=_hem(setting) | _hierarchy(setting) | changes)
        rows.append(Row(name, runs, published.TABLE5[name]))
    notes = (
        "n: the mask acts after the L2 normalisation and what it shortens stays short "
        "(loss.dpm.mask_renormalise False). The released implementation normalises again; a cosine does not "
        "see a row's length, so then Pn is the same computation as P, and Pn + Fn as P + F: "
        "rows P and P + F stand for both.",
    )
    return Table("table5", "Table 5: what the mask multiplies", tuple(rows), notes=notes)


def with_parts(setting: Setting, changes: dict[str, object] | None = None) -> tuple[Run, ...]:
    """The config's DPM with part prototypes, beyond the paper."""
    return setting.runs(changes=_hem(setting) | _hierarchy(setting) | {"vit.parts": PARTS} | (changes or {}))


def parts(setting: Setting, budgeted: Budgeted) -> Table:
    """Part prototypes beside DPM and the baselines: in equal epochs, at other widths, and in equal time.

    Args:
        budgeted: makes the runs in equal time.
    """
    dim = setting.dim
    half, narrow, wide = dim // 2, dim // PARTS, PARTS * dim
    rows = {
        "baseline": setting.runs(setting.baseline),
        "baseline with parts": setting.runs(setting.baseline, {"vit.parts": PARTS}),
        "DPM": full(setting),
        "parts": with_parts(setting),
        f"parts, {dim} channels each": with_parts(setting, {"vit.part_dim": dim}),
        f"parts, {narrow} channels each": with_parts(setting, {"vit.part_dim": narrow}),
        f"1 part, {wide} channels": with_parts(setting, {"vit.parts": 1, "vit.part_dim": wide}),
        f"3 parts, {dim} channels each": with_parts(setting, {"vit.parts": 3, "vit.part_dim": dim}),
        "DPM, budget": budgeted(f"{setting.model}-budget", setting.model, {}),
        "baseline, budget": budgeted(f"{setting.baseline}-budget", setting.baseline, {}),
    }
    notes = (
        f"parts: the class token and {PARTS} stripes of {half} channels each (vit.parts {PARTS}), {dim + PARTS * half} "
        f"channels in all, mask and prototypes as wide. {dim} each (vit.part_dim) make {dim + wide} in all, "
        f"{narrow} each {dim + PARTS * narrow}, about twice DPM's {dim}. "
        f"1 part of {wide} is as wide as {PARTS} of {dim}, without their structure. "
        "Baseline with parts: the same features without mask branch. Nothing of this is in the paper.",
    )
    return Table("parts", "Part prototypes, beyond the paper", tuple(Row(*row) for row in rows.items()), (), notes)


def default_alphas(config: CfgNode) -> tuple[float, ...]:
    """The paper's grid around its own alpha, else one around the config's."""
    own = config.loss.dpm.alpha
    return (0.1, 0.3, 0.5, 0.7, 0.9) if own == 0.5 else tuple(sorted({0.2, 0.35, 0.5, 0.65, 0.8, 0.9, own}))


def default_betas(config: CfgNode) -> tuple[float, ...]:
    """The paper's grid around its own beta, else one around the config's."""
    own = config.loss.dpm.beta or 0.005
    if own == 0.1:
        return (0.0, 0.05, 0.1, 0.15, 0.2)
    return tuple(round(own * factor, 10) for factor in (0, 0.5, 1, 2, 10, 20))


def figure5(setting: Setting, alphas: Sequence[float] = (), betas: Sequence[float] = ()) -> Table:
    """Sweep of alpha without head enrich loss, and of beta at the config's alpha."""
    config, own = setting.config, setting.config.loss.dpm.alpha
    rows, axes = {}, {"alpha": {}, "beta": {}}
    for alpha in alphas or default_alphas(config):
        changes = {"loss.dpm.alpha": alpha, "loss.dpm.beta": 0.0} | _hierarchy(setting)
        axes["alpha"][alpha] = name = f"α = {alpha:g}, β = 0"
        rows[name] = Row(name, setting.runs(changes=changes), published.alpha_value(alpha))
    for beta in betas or default_betas(config):
        axes["beta"][beta] = name = f"α = {own:g}, β = {beta:g}"
        known = rows[name].published if name in rows else None
        value = (published.beta_value(beta) if own == 0.5 else None) or known
        rows[name] = Row(name, setting.runs(changes={"loss.dpm.beta": beta} | _hierarchy(setting)), value)
    notes = tuple(f"The paper on {text}" for text in published.FIGURE5_TEXT)
    return Table("figure5", "Figure 5: weights α and β of Eq. 8", tuple(rows.values()), notes=notes, axes=axes)


def comparison(what: str, setting: Setting, models: Sequence[str], budgeted: Budgeted) -> Table:
    """Tables 1 and 2: DPM beside its baseline, a TransReID-style one, torchreid's models, published rows.

    Args:
        what: "table1" or "table2".
        models: names of torchreid's models.
        budgeted: makes the runs of all but DPM.
    """
    paper, title = {
        "table1": (published.TABLE1, "Table 1: occluded data"),
        "table2": (published.TABLE2, "Table 2: holistic data"),
    }[what]
    _, patch = setting.architecture
    stride = setting.config.vit.stride
    smallest = min(stride) if isinstance(stride, (list, tuple)) else stride
    overlap = stride if smallest < patch else patch * 3 // 4  # TransReID's own share: 12 of 16 pixels
    plain = {"vit.camera_embedding": False, "vit.stride": patch}
    transreid = {"vit.camera_embedding": True, "vit.stride": overlap}
    base = setting.baseline
    rows = [
        Row("DPM", setting.runs(), paper["DPM"]),
        Row(
            "ViT baseline",
            budgeted(f"{base}-plain", base, plain),
            published.TABLE3["baseline"] if what == "table1" else None,
        ),
        Row("TransReID style", budgeted(f"{base}-transreid", base, transreid), paper["TransReID*"]),
        *(Row(name, budgeted(name, name, {}), paper["PCB"] if name.startswith("pcb_") else None) for name in models),
    ]
    shown = {row.published.method for row in rows if row.published}
    rows += [Row(method, (), line) for method, line in paper.items() if method not in shown]
    notes = (
        f"ViT baseline: no camera embedding, patches side by side (vit.stride {patch}). TransReID style: "
        f"camera embedding and overlapping patches (vit.stride {overlap}), no mask and no jigsaw branch. "
        "The paper's values are of pretrained models; a star marks methods that use the transformer.",
    )
    return Table(what, title, tuple(rows), tuple(paper["DPM"].values), notes)


def holistic(setting: Setting) -> Setting:
    """Table 2's data: the drawn benchmark almost without occluders; other data as they are."""
    config = setting.config
    if SYNTHETIC not in config.data.sources + config.data.targets:
        return setting
    return setting.with_overrides(
        {"synthetic.train_occluded": 0.0, "synthetic.hidden_min": 0.05, "synthetic.hidden_max": 0.1}
    )
