r"""What cannot be read from files, said by who brings the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from geomem.arguments import Number, checked


@checked
@dataclass(frozen=True)
class DoorOptions:
    r"""What cannot be read from files, named by who brings the model.

    Attributes:
        prediction: What the network returns: epsilon, v_prediction, sample, flow_prediction or
            score; as its files say if not given.
        schedule: Its schedule: a scheduler_config.json (or its folder), or one of linear,
            scaled_linear, cosine, sigmoid, flow, flow-unit, flow-reversed (torchcfm), edm, ve,
            vp; as its files say if not given.
        base: For a LoRA, a lone network or a checkpoint: the pipeline that it belongs to.
        network: For bare weights: package.module:function, which builds the network.
        weights: The average of the weights (ema) where there is one, or the raw ones.
        lora_scale: What a LoRA's update is multiplied with; alpha over rank if not given.
        dtype: The dtype that the network works in.
    """

    prediction: str | None = None
    schedule: str | None = None
    base: Path | None = None
    network: str | None = None
    weights: Literal["ema", "raw"] = "ema"
    lora_scale: Annotated[float, Number()] | None = None
    dtype: Literal["float32", "float64", "bfloat16", "float16"] = "float32"
