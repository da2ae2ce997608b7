"""The passes, in order, each with the reason for its position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sparrow.graph import Graph
from sparrow.passes.affine import fold_affine
from sparrow.passes.cse import cse
from sparrow.passes.fuse_epilogue import bias_add, fuse_epilogue
from sparrow.passes.fuse_lanes import fuse_lanes
from sparrow.passes.layout import channels_last, sink_transpose
from sparrow.passes.tidy import tidy_identity, tidy_reshape, tidy_transpose
from sparrow.rewrite import Remark, Rule, apply_rules, prune

TIDY: tuple[tuple[str, Rule], ...] = (
    ("tidy_transpose", tidy_transpose),
    ("tidy_reshape", tidy_reshape),
    ("tidy_identity", tidy_identity),
)


@dataclass(frozen=True, slots=True)
class Pass:
    """A graph transformation: a whole-graph function, or rules applied until nothing changes.

    Attributes:
        name: Shown by ``--explain``.
        rules: Local rules, or empty.
        function: Whole-graph function used when there are no rules.
        why: Reason for its position in `PIPELINE`.
    """

    name: str
    why: str
    rules: tuple[tuple[str, Rule], ...] = ()
    function: Callable[[Graph], Graph] | None = None

    def __call__(self, g: Graph, remarks: list[Remark] | None = None) -> Graph:
        """Apply to a graph; the result gives the same answers."""
        return self.function(g) if self.function else apply_rules(g, self.rules, remarks)


PIPELINE: tuple[Pass, ...] = (
    Pass("prune", "nothing below should look at dead nodes", function=prune),
    Pass("cse", "equal constants and nodes become one before anything matches on users", function=cse),
    Pass("tidy", "matchers should not see through empty movement", TIDY),
    Pass("fold_affine", "while the multiply-add of a batch norm is still one op", (("fold_affine", fold_affine),)),
    Pass("bias_add", "biases fold before activations hide them", (("bias_add", bias_add),)),
    Pass("channels_last", "after folding, which speaks of one channel axis", (("channels_last", channels_last),)),
    Pass("layout", "transposes sink until they meet their inverse", (*TIDY, ("sink_transpose", sink_transpose))),
    Pass("fuse_epilogue", "activations join sums before chains swallow them", (("fuse_epilogue", fuse_epilogue),)),
    Pass("fuse_lanes", "what is left of elementwise chains becomes single loops", (("fuse_lanes", fuse_lanes),)),
    Pass("fuse_rest", "a fused chain may now end at a sum", (("fuse_epilogue", fuse_epilogue),)),
    Pass("clean", "what passes left behind", function=lambda g: prune(cse(g))),
)


def optimize(
    g: Graph, passes: tuple[Pass, ...] = PIPELINE, remarks: list[Remark] | None = None
) -> Graph:
    """Run the passes in order."""
    for p in passes:
        g = p(g, remarks)
    return g
