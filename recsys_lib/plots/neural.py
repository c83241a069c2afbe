"""Figures of 06: the nets, how they learn, where they err."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from recsys_lib.plots.style import ACCENT, MAIN, MUTED


def curves_figure(log: pd.DataFrame, title: str, *, loss: str = "training loss", valid: str = "RMSE") -> Figure:
    """Training loss, validation value and learning rate by epoch, one panel each.

    Parameters
    ----------
    log
        epoch, loss, lr, valid (may be missing throughout).
    loss, valid
        What the first two are.
    """
    figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2))
    columns = [("loss", loss, MUTED), ("valid", f"{valid} on validation", MAIN), ("lr", "learning rate", ACCENT)]
    for panel, (column, label, colour) in zip(axes, columns, strict=True):
        values = pd.to_numeric(log[column])
        panel.plot(log["epoch"], values, color=colour, marker="o" if len(log) < 30 else None, ms=4, lw=1.8)
        panel.set(xlabel="epoch", title=label)
    values = pd.to_numeric(log["valid"])
    if values.notna().any():
        best = values.idxmin() if valid == "RMSE" else values.idxmax()
        axes[1].plot(log["epoch"][best], values[best], "o", color=ACCENT, ms=7)
        axes[1].annotate(
            f"{values[best]:.4f}", (log["epoch"][best], values[best]), (0, 8), textcoords="offset points", ha="center"
        )
        axes[1].margins(y=0.15)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    return figure
