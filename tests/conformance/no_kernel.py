"""ONNX node tests that import but have no native kernel, by reason; planning refuses them."""

from __future__ import annotations

NO_KERNEL: dict[str, tuple[str, ...]] = {
    "Attention: attention_f32: float64": (
        "test_flexattention_double*",
    ),
    "float16 and bfloat16 sums of products have no kernel": (
        "test_attention_24_qk_matmul_output_mode3_softmax_precision_expanded",
        "test_attention_3d_causal_bf16_expanded",
        "test_attention_4d_attn_mask_causal_bf16_expanded",
        "test_attention_4d_causal_bf16_expanded",
        "test_attention_4d_causal_fp16_expanded",
        "test_attention_4d_causal_padded_kv_bf16_expanded",
        "test_attention_4d_fp16_expanded",
        "test_attention_4d_gqa_causal_nonpad_decode_fp16_expanded",
        "test_attention_4d_gqa_with_past_and_present_fp16_expanded",
        "test_attention_4d_padded_kv_bf16_expanded",
        "test_attention_local_window_ext_cache_float16_mask_expanded",
        "test_causal_conv_with_state_fp16*",
        "test_causal_conv_with_state_silu_fp16*",
        "test_flexattention_fp16*",
    ),
}
