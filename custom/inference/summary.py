"""A short table of the result for one image, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def summary_table(report: Mapping[str, Any], path: Path) -> str:
    """Return one line per object and the written files.

    Args:
        report: the content of the JSON file.
        path: the JSON file.

    Example:
        >>> box = {"name": "disc", "iou": 0.93, "area": 812}
        >>> print(summary_table({"boxes": [box], "modality": "Fundus", "files": ["a_mask.png"]}, Path("r/a.json")))
        object   IoU  pixels  modality
        disc    0.93     812  Fundus
        r: a_mask.png, a.json
    """
    rows = [_row(entry, report["modality"]) for entry in report["boxes"]]
    columns = [column for column in rows[0] if any(row[column] for row in rows)]
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in columns}
    left = ("object", "modality")  # words are left-aligned, numbers right-aligned
    lines = [{column: column for column in columns}, *rows]
    text = ["  ".join(f"{row[c]:{'<' if c in left else '>'}{widths[c]}}" for c in columns).rstrip() for row in lines]
    return "\n".join([*text, f"{path.parent}: {', '.join([*report['files'], path.name])}"])


def _row(entry: Mapping[str, Any], modality: str | None) -> dict[str, str]:
    size = {"mm2": "", "mL": "", "pixels": "", "voxels": ""}
    if "area_mm2" in entry:
        size["mm2"] = f"{entry['area_mm2']:.4g}"
    elif "volume_mm3" in entry:
        size["mL"] = f"{entry['volume_mm3'] / 1000:.4g}"
    else:
        unit = "area" if "area" in entry else "voxels"
        size["pixels" if unit == "area" else unit] = str(entry[unit])
    seen = entry.get("predicted_modality", modality)
    other = "" if seen == modality else f" (looks like {seen}, {entry['probability']:.0%})"
    return {
        "object": entry["name"],
        "IoU": f"{entry['iou']:.2f}",
        **size,
        "longest mm": f"{entry['longest_diameter_mm']:.4g}" if "longest_diameter_mm" in entry else "",
        "modality": f"{modality or 'unknown'}{other}",
    }
