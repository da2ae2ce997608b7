"""What keeping a budget of RAM costs: layers in strips of rows, in the emulator.

    python bench/strips.py                                    # all models, one core, all budgets
    python bench/strips.py --models mcunet --cores cortex_m55

Prints a Markdown table and writes ``bench/results/strips.csv``. Budgets are shares of what whole
layers take in all (arena, inputs, outputs, stack); where one cannot be kept, the row says so and is
of the least that was found. Instructions are exact, and no cycles.
"""

from __future__ import annotations

import sparrow
from mcu import MODELS, arguments, print_head, print_row, write_rows

SHARES = (1.0, 0.85, 0.7, 0.6, 0.0)
FIELDS = (
    *("model", "core", "ram_limit", "kept", "ram_bytes", "arena_bytes", "steps", "code_bytes"),
    *("stack_bytes", "instructions"),
)


def main() -> None:
    """Measure, print, write."""
    given = arguments(__doc__, ["mcunet", "vww"], ["cortex_m7"], "strips.csv")
    rows: list[dict[str, object]] = []
    print_head(FIELDS)
    for model in given.models:
        for core in given.cores:
            path = given.data / MODELS[model]
            whole = sparrow.fits(path, core, ram=0)
            rest = whole.ram_bytes - whole.arena_bytes
            for share in SHARES:
                # of the least, a byte is left for the arena
                limit = max(int(whole.ram_bytes * share), rest + 1)
                f = sparrow.fits(path, core, ram=limit) if share < 1 else whole
                counted = sum(x.instructions for x in f.layers)
                sizes = len(f.layers), f.code_bytes, f.stack_bytes, counted
                kept = f.ram_bytes <= limit
                values = (model, core, limit, kept, f.ram_bytes, f.arena_bytes, *sizes)
                rows.append(dict(zip(FIELDS, values, strict=True)))
                print_row(rows[-1])
    write_rows(given.out, FIELDS, rows)


if __name__ == "__main__":
    main()
