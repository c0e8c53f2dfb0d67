"""The operations a graph may hold: functional aten operators without files, randomness or code.

A name that is not in `ALLOWED` is refused before anything is looked up. Of an allowed operator
only overloads that change none of their arguments, and take nothing but tensors and numbers,
are taken; `getitem`, which picks one result of several, is the only target that is not aten.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from ndt_offline.errors import RefusedError

_ELEMENTWISE = """
abs acos acosh add addcdiv addcmul all any amax amin argmax argmin asin asinh atan atan2 atanh
bitwise_and bitwise_not bitwise_or bitwise_xor ceil celu clamp clamp_max clamp_min cos cosh
cumprod cumsum deg2rad div elu eq erf erfc erfinv exp exp2 expm1 floor floor_divide fmax fmin fmod
fill frac ge gelu glu gt hardshrink hardsigmoid hardswish hardtanh hypot isfinite isinf isnan le
leaky_relu lerp log log10 log1p log2 log_sigmoid log_softmax _log_softmax logaddexp logical_and
logical_not logical_or logical_xor logsumexp lt masked_fill max maximum mean median min minimum
mish mul nan_to_num ne neg norm pow prelu _prelu_kernel prod reciprocal relu relu6 remainder round
rsqrt rsub selu sgn sigmoid sign silu sin sinh softmax _softmax _safe_softmax softplus softshrink
special_logit logit sqrt square std std_mean sub sum tan tanh threshold true_divide
trunc var var_mean where xlogy linalg_vector_norm linalg_norm frobenius_norm cosine_similarity
argsort count_nonzero cummax cummin logcumsumexp special_expit
complex polar real imag angle conj _conj conj_physical resolve_conj resolve_neg view_as_complex
view_as_real fft_fft fft_ifft fft_rfft fft_irfft fft_fft2 fft_ifft2
fft_rfft2 fft_irfft2 fft_fftn fft_ifftn fft_rfftn fft_irfftn fft_fftshift fft_ifftshift
absolute arccos arccosh arcsin arcsinh arctan arctan2 arctanh clip diff divide fix greater
greater_equal less less_equal multiply negative not_equal positive subtract isclose
pairwise_distance bucketize searchsorted sum_to_size
"""
_SHAPE = """
alias broadcast_to cat chunk clone concat contiguous diag diag_embed diagonal expand
expand_as flatten flip fliplr flipud gather hstack index index_select masked_scatter moveaxis
movedim
narrow permute pixel_shuffle pixel_unshuffle channel_shuffle numpy_T ravel repeat
repeat_interleave reshape reshape_as roll rot90 scatter scatter_add select slice sort
split split_with_sizes squeeze stack swapaxes swapdims t take_along_dim tensor_split tile to
_to_copy topk transpose tril triu type_as unbind unflatten unfold unsqueeze
view view_as _unsafe_view _reshape_alias vstack dstack column_stack atleast_1d atleast_2d atleast_3d
block_diag constant_pad_nd pad reflection_pad1d
reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d
slice_scatter select_scatter diagonal_scatter scatter_reduce index_put index_add index_copy
index_fill copy meshgrid unsafe_split unsafe_chunk one_hot im2col col2im
"""
_CREATE = """
arange eye full full_like linspace new_full new_ones new_zeros ones ones_like scalar_tensor zeros
zeros_like
"""
_MATRIX = """
addbmm addmm addmv baddbmm bilinear bmm conv1d conv2d conv3d conv_transpose1d conv_transpose2d
conv_transpose3d convolution _convolution dot einsum embedding embedding_bag inner linear matmul mm
mv vdot outer tensordot linalg_matrix_norm linalg_multi_dot _weight_norm _weight_norm_interface
lstm gru rnn_tanh rnn_relu lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell
scaled_dot_product_attention cdist matrix_exp linalg_householder_product
linalg_matrix_exp linalg_solve linalg_solve_ex linalg_inv linalg_inv_ex inverse
linalg_cross cross kron det logdet slogdet linalg_det linalg_slogdet
"""
_LOSS = """
binary_cross_entropy binary_cross_entropy_with_logits cross_entropy_loss huber_loss kl_div l1_loss
mse_loss nll_loss nll_loss2d nll_loss_nd nll_loss_forward nll_loss2d_forward smooth_l1_loss
"""
_LAYER = """
adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d avg_pool1d
avg_pool2d avg_pool3d max_pool1d max_pool2d max_pool3d max_pool2d_with_indices
max_pool3d_with_indices max_pool1d_with_indices batch_norm _native_batch_norm_legit_no_training
_native_batch_norm_legit _batch_norm_no_update native_batch_norm group_norm native_group_norm
instance_norm layer_norm native_layer_norm rms_norm _fused_rms_norm
upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
upsample_bicubic2d upsample_trilinear3d _upsample_nearest_exact1d _upsample_nearest_exact2d
_upsample_nearest_exact3d _upsample_bilinear2d_aa _upsample_bicubic2d_aa grid_sampler
grid_sampler_2d affine_grid_generator
"""
ALLOWED = frozenset(" ".join((_ELEMENTWISE, _SHAPE, _CREATE, _MATRIX, _LAYER, _LOSS)).split())
# Results that share memory with their argument: they cost none of their own.
_VIEWS = """
alias broadcast_to chunk diagonal expand expand_as flatten getitem movedim narrow permute
reshape reshape_as select slice split split_with_sizes squeeze swapaxes swapdims t tensor_split
transpose unbind unflatten unfold unsqueeze view view_as view_as_complex view_as_real _unsafe_view
_reshape_alias moveaxis
"""
VIEWS = frozenset(_VIEWS.split())
RECURRENT = frozenset({"lstm", "gru", "rnn_tanh", "rnn_relu"})
_NAME = re.compile(r"aten\.([A-Za-z_0-9]+)\.([A-Za-z_0-9]+)\Z")
_PLAIN_TYPE = re.compile(
    r"(Optional\[)?(List\[)?(Optional\[)?"
    r"(Tensor|int|float|bool|number|str|SymInt|Scalar|ScalarType|MemoryFormat|Layout|Device)"
    r"\]*\Z"
)


def packet(op: str) -> str:
    """`linear` for `aten.linear.default`."""
    return op.split(".")[1] if "." in op else op


def check_allowed(op: Any, node: str) -> str:
    """The operation's name if a graph may hold it; RefusedError that names both otherwise."""
    if op == "getitem":
        return op
    match = _NAME.match(op) if isinstance(op, str) and len(op) < 200 else None
    if match is None or match.group(1) not in ALLOWED or not _overload_allowed(match.group(2)):
        raise RefusedError(
            f"node {node}: the operation {ascii(op)[:80]} is not on the list of allowed ones",
            remedy="give the model itself with --model package.module:factory",
        )
    return str(op)


def _overload_allowed(overload: str) -> bool:
    """No writing into a given tensor, none of TorchScript's own (they check no argument)."""
    return not overload.endswith("out") and not overload.startswith("prim_")


def resolve(op: str, node: str = "?") -> Callable[..., Any]:
    """torch's operator for an allowed name, after a look at its schema."""
    import torch

    _, name, overload = check_allowed(op, node).split(".")
    family = getattr(torch.ops.aten, name, None)
    # Only what torch lists as an overload: any other attribute of the family is Python's.
    found = getattr(family, overload) if family and overload in family.overloads() else None
    if found is None:
        raise RefusedError(
            f"node {node}: torch {torch.__version__} has no operation {op}",
            remedy="the torch version that recorded the run, or --model package.module:factory",
        )
    if not functional(found):
        raise RefusedError(f"node {node}: {op} changes its arguments or takes more than numbers")
    return found


def functional(operator: Any) -> bool:
    """Whether an operator only reads tensors and numbers and only returns tensors."""
    schema = operator._schema
    types = [str(argument.type) for argument in schema.arguments]
    results = [str(result.type) for result in schema.returns]
    return (
        not schema.is_mutable
        and all(_PLAIN_TYPE.match(kind) for kind in types)
        and all(kind in ("Tensor", "List[Tensor]") for kind in results)
    )


def takes(operator: Any, argument: str) -> bool:
    """Whether an operator has an argument of that name."""
    return any(known.name == argument for known in operator._schema.arguments)
