"""Command: run a campaign, or show, replay or shrink a case.

PYTHONPATH=src:tests python -m fuzz --cases 100000 --log fuzz.jsonl
PYTHONPATH=src:tests python -m fuzz --show onnx:1:4711        # the bytes of a case
PYTHONPATH=src:tests python -m fuzz --summary fuzz.jsonl      # the table of docs/threat-model.md
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fuzz import campaign, summary


def _commit() -> str:
    words = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, check=False)
    return done.stdout.decode().strip()


def _show(text: str) -> None:
    from fuzz.targets import BY_NAME, case

    name, seed, index = text.split(":")
    target = BY_NAME[name]
    sys.stdout.buffer.write(case(target, int(seed), int(index), target.seeds(), target.made()))


def main() -> int:
    """Entry point; exit code 1 when a case broke the contract."""
    p = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    p.add_argument("--cases", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--target", default="", help="names between commas; all by default")
    p.add_argument("--workers", type=int, default=1)
    p.add_argument("--log", type=Path, help="JSON lines to append to and to go on from")
    p.add_argument("--show", metavar="TARGET:SEED:INDEX", help="write the bytes of a case")
    p.add_argument("--summary", type=Path, metavar="LOG", help="print the totals of a log")
    p.add_argument("--worker", nargs=5, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.worker:
        name, seed, start, stop, out = a.worker
        campaign.worker(name, int(seed), int(start), int(stop), Path(out))
        return 0
    if a.show:
        _show(a.show)
        return 0
    if a.summary:
        print(summary.table(campaign.rows(a.summary)))
        return 0
    from fuzz.targets import TARGETS

    wanted = set(a.target.split(",")) if a.target else {t.name for t in TARGETS}
    unknown = wanted - {t.name for t in TARGETS}
    if unknown:
        p.error(f"no target {sorted(unknown)[0]!r}; there are {[t.name for t in TARGETS]}")
    shares = [(t.name, t.share) for t in TARGETS if t.name in wanted]
    each = -(-a.cases // a.workers)
    with ThreadPoolExecutor(a.workers) as pool:
        found = pool.map(
            lambda i: campaign.campaign(shares, a.seed + i, each, a.log, _commit()),
            range(a.workers),
        )
        broken = [v for part in found for v in part]
    print(f"{each * a.workers} cases, {len(broken)} broke the contract")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
