"""What the paper reports: its Tables 1 to 5 and the numbers its text gives for Figure 5, in percent.

Source of every value: "Dynamic Prototype Mask for Occluded Person Re-Identification" (ACM MM 2022), the table
named in ``source``. The rows of other methods are as that paper lists them.
"""

from collections.abc import Sequence
from typing import NamedTuple


class Published(NamedTuple):
    """One row: ``values`` maps "<data set> <metric>" to percent; what the paper leaves out is missing."""

    method: str
    values: dict[str, float]
    source: str


def _rows(source: str, headings: Sequence[str], lines: Sequence[str]) -> dict[str, Published]:
    rows = {}
    for line in lines:
        method, *numbers = (part.strip() for part in line.split("|"))
        values = {heading: float(number) for heading, number in zip(headings, numbers, strict=True) if number != "-"}
        rows[method] = Published(method, values, f"DPM paper, {source}")
    return rows


#: Comparison on occluded data. A star marks methods that use the transformer.
TABLE1 = _rows(
    "Table 1",
    ("Occluded-Duke R-1", "Occluded-Duke mAP", "Occluded-REID R-1", "Occluded-REID mAP"),
    (
        "PCB          | 42.6 | 33.7 | 41.3 | 38.9",
        "Part Bilinear| 36.9 | -    | -    | -",
        "FD-GAN       | 40.8 | -    | -    | -",
        "ISP          | 62.8 | 52.3 | -    | -",
        "TransReID*   | 66.4 | 59.2 | -    | -",
        "DSR          | 40.8 | 30.4 | 72.8 | 62.8",
        "Ad-Occluded  | 44.5 | 32.2 | -    | -",
        "FPR          | -    | -    | 78.3 | 68.0",
        "PGFA         | 51.4 | 37.3 | -    | -",
        "PVPM+Aug     | -    | -    | 70.4 | 61.2",
        "HOReID       | 55.1 | 43.8 | 80.3 | 70.2",
        "OAMN         | 62.6 | 46.1 | -    | -",
        "Part-Label   | 62.2 | 46.3 | 81.0 | 71.0",
        "PAT*         | 64.5 | 53.6 | 81.6 | 72.1",
        "DPM          | 71.4 | 61.8 | 85.5 | 79.7",
    ),
)

#: Comparison on holistic data.
TABLE2 = _rows(
    "Table 2",
    ("Market-1501 R-1", "Market-1501 mAP", "DukeMTMC-reID R-1", "DukeMTMC-reID mAP"),
    (
        "PCB       | 92.3 | 71.4 | 81.8 | 66.1",
        "MGN       | 95.7 | 86.9 | 88.7 | 78.4",
        "ISP       | 95.3 | 88.6 | 89.6 | 80.0",
        "CDNet     | 95.1 | 86.0 | 88.6 | 76.8",
        "TransReID*| 95.2 | 88.9 | 90.7 | 82.0",
        "FPR       | 95.4 | 86.6 | 88.6 | 78.4",
        "PGFA      | 91.2 | 76.8 | 82.6 | 65.5",
        "HOReID    | 94.2 | 84.9 | 86.9 | 75.6",
        "OAMN      | 93.2 | 79.8 | 86.3 | 72.6",
        "PAT*      | 95.4 | 88.0 | 88.8 | 78.2",
        "DPM       | 95.5 | 89.7 | 91.0 | 82.6",
    ),
)

#: Headings of Tables 3 to 5 and Figure 5.
DUKE = tuple(f"Occluded-Duke {metric}" for metric in ("R-1", "R-5", "R-10", "mAP"))

#: Parts of the method, on Occluded-Duke: HR, hierarchy in the mask generator; HEM, head enrich module.
TABLE3 = _rows(
    "Table 3",
    DUKE,
    (
        "baseline   | 64.8 | 80.8 | 85.8 | 57.8",
        "+DPM       | 70.1 | 82.8 | 86.9 | 59.9",
        "+DPM+HR    | 71.0 | 82.9 | 87.2 | 61.0",
        "+DPM+HR+HEM| 71.4 | 83.7 | 87.4 | 61.8",
    ),
)

#: Loss of the plain and of the masked head, on Occluded-Duke: S softmax, A angular margin.
TABLE4 = _rows(
    "Table 4",
    DUKE,
    (
        "baseline S| 64.8 | 80.8 | 85.8 | 57.8",
        "baseline A| 68.6 | 81.2 | 85.9 | 58.5",
        "DPM S S   | 64.6 | 80.6 | 85.5 | 57.3",
        "DPM A A   | 68.3 | 80.0 | 84.2 | 57.7",
        "DPM S A   | 70.1 | 82.8 | 86.9 | 59.9",
    ),
)

#: What the mask multiplies, on Occluded-Duke: prototype P, feature F; n: after the L2 normalisation.
TABLE5 = _rows(
    "Table 5",
    DUKE,
    (
        "Pn     | 71.4 | 83.7 | 87.4 | 61.8",
        "Pn + Fn| 69.5 | 82.3 | 86.8 | 58.5",
        "P      | 70.2 | 84.0 | 87.4 | 60.8",
        "P + F  | 69.7 | 81.6 | 85.1 | 58.3",
    ),
)

#: What the text says of Figure 5 (section 4.4, Occluded-Duke); its curves are drawn without numbers.
FIGURE5_TEXT = (
    "α, without head enrich loss: rank-1 and mAP rise up to α = 0.5 (71.0 and 61.0) and fall after it.",
    "β, at that α: both gain while β is below 0.15; rank-1 is best at 0.05, mAP at 0.1, which was chosen.",
)


def alpha_value(alpha: float) -> Published | None:
    """Published for Figure 5's ``alpha`` (beta 0), or None: the text gives the peak only."""
    peak = {"Occluded-Duke R-1": 71.0, "Occluded-Duke mAP": 61.0}
    return Published("α = 0.5", peak, "DPM paper, section 4.4 on Figure 5") if alpha == 0.5 else None


def beta_value(beta: float) -> Published | None:
    """Published for Figure 5's ``beta`` (alpha 0.5), or None: 0 is Table 3 without HEM, 0.1 with it."""
    return {0: TABLE3["+DPM+HR"], 0.1: TABLE3["+DPM+HR+HEM"]}.get(beta)
