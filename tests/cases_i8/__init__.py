"""Random graphs of one operator over codes each, a file for each family.

`conformance/test_*_i8.py` compile and compare them. A maker turns a seed into a graph and feeds.
"""

from __future__ import annotations

from cases_i8.convolutions import conv_case, upright_case
from cases_i8.depthwise import depthwise_case, wide_case
from cases_i8.functions import (
    attention_case,
    lookup_case,
    lookup_linear_case,
    normalization_case,
    pool_case,
    resize_case,
    softmax_case,
)
from cases_i8.products import matmul_case, product_case
from cases_i8.recurrent import gru_case, lstm_case, lstm_of_halves_case

# The cases of every operator; seeds follow their order.
MAKERS = (
    *(conv_case, depthwise_case, matmul_case, lookup_case, pool_case, softmax_case, resize_case),
    *(attention_case, lstm_case, lstm_of_halves_case, gru_case, product_case, lookup_linear_case),
    *(wide_case, normalization_case, upright_case),
)
