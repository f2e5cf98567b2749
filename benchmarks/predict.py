"""What prediction costs and how good it is, part by part.

    python benchmarks/predict.py --only knn | mil

``knn``: `predict_knn`. ``mil``: `predict_mil`. What was measured replaces its entry in
``benchmarks/results/predict.json``; others stay. Calibration, novelty and other laboratories are measured by
``predict_trust.py``, which writes ``benchmarks/results/predict_trust.json``.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module

from machine import RESULTS, command, machine

PARTS = {
    "knn": "predict_knn",
    "mil": "predict_mil",
}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, required=True, help="part to measure")
    parser.add_argument("--note", default="", help="what else ran on the machine; kept with the figures")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    found = getattr(import_module(PARTS[options.only]), options.only)()
    part = {"command": command(), "note": options.note, **found, "machine": machine()}
    print(json.dumps(part, indent=1))
    if not options.dry:
        path = RESULTS / "predict.json"
        whole = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        path.write_text(json.dumps({**whole, options.only: part}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
