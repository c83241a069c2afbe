"""The style of all figures, and how they are saved."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from recsys_lib.files import replacing

INK = "#1f2933"
MUTED = "#7b8794"
GRID = "#e4e7eb"
# Colours that stay apart for colour-blind readers, after Okabe and Ito, "Color Universal Design" (2008).
COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c8c", "#f0e442"]
MAIN, ACCENT = COLOURS[0], COLOURS[5]


def use_style() -> None:
    """Set seaborn's, matplotlib's and plotly's defaults for this process."""
    sns.set_theme(style="whitegrid", palette=COLOURS, font="DejaVu Sans")
    mpl.rcParams.update(
        {
            "figure.dpi": 96,
            "savefig.dpi": 120,
            "figure.constrained_layout.use": True,
            "axes.edgecolor": MUTED,
            "axes.labelcolor": INK,
            "axes.titlecolor": INK,
            "axes.titlelocation": "left",
            "axes.titleweight": "bold",
            "axes.titlesize": 11,
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "grid.color": GRID,
            "grid.linewidth": 0.8,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
            "xtick.labelsize": 9,
            "ytick.labelsize": 9,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "svg.hashsalt": "recsys-lab",
        }
    )


def save_figure(figure: Figure, path: Path | str) -> Path:
    """Write a PNG that looks the same from the same data; the folder is made where it is missing."""
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
    return Path(path)
