"""All that this package changes for the whole process, in one place."""

from __future__ import annotations

import os

import torch

from . import warp_setup


def prepare_process(device: torch.device, *, tf32: bool | None = None) -> torch.device:
    """Make the process ready to work on ``device``, which is returned: commands, the node and Pipeline.build call it first.

    cuBLAS takes 8 MB a stream instead of 32 on recent GPUs, unless the user has chosen (CUBLAS_WORKSPACE_CONFIG, heard
    until the first product): a node has six streams, and none of its products is faster for more. cuDNN looks for its
    fastest algorithms: every shape is fixed, so that the search pays once, in warm-up. Warp starts quietly.
    tf32: whether FP32 products may be rounded to TF32; None leaves that as torch has it.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:2:16:8")
        torch.backends.cudnn.benchmark = True
    if tf32 is not None:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    warp_setup.start()
    return device
