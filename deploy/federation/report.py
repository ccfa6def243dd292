"""What a finished federation leaves to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rootstock.coordinator.config import CoordinatorConfig
from rootstock.coordinator.net.reader import NetReader
from rootstock.coordinator.pictures.net import draw_net
from rootstock.deploy.federation.run import Outcome

PICTURE = "net.png"


def draw_head(config: CoordinatorConfig, path: Path) -> bool:
    """Draw the newest net version as the paper's figure 1 does; False where no net was founded."""
    with NetReader.open(config) as view:
        if view.head is None:
            return False
        tree = view.tree(view.head)
    draw_net(tree, path)
    return True


def summary(outcome: Outcome, folder: Path, *, founded: bool) -> dict[str, Any]:
    """Return the JSON of `demo` and `up` (DESIGN section 8)."""
    if folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    return {
        "net_version": outcome.net_version,
        "seconds": outcome.seconds,
        "mlflow_uri": outcome.mlflow_uri,
        "categories": outcome.categories,
        "places": {
            "MLflow UI": f"rootstock coordinator ui {folder}",
            "net": str(folder / PICTURE) if founded else "none was founded",
            "logs": str(folder / "logs"),
            "state": str(folder),
        },
    }
