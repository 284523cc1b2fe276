"""The steerable residual classifiers of the CATH experiment (steerable.md 3.6, 5.3)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from equivox.nets.classifiers_gated import so3_fields
from equivox.nn.residual import GatedConv3d, GatedResidual3d

BLOCKS = (3, 4, 6, 3)
"""Residual blocks per stage; all but the first stage begin with a stride of 2."""
MOMENTUM = 0.01


class SE3ResNet34(nn.Module):
    """Residual network of 34 layers with as many fields of degree 0, 1, 2 and 3: 568,030 parameters for ten classes.

    A stem of one convolution, stages of 3, 4, 6 and 3 residual blocks whose widths double, scalars without activation
    at the end; mean over space, linear.

    Parameters
    ----------
    classes, channels_in
        Number of logits, scalar channels of the input.
    width
        Fields of each degree in the first stage.
    features
        Scalars at the end.
    stem_size
        Taps per axis of the stem.
    dropout
        Chance of a whole field to be dropped after each convolution.
    """

    def __init__(
        self,
        classes: int = 10,
        channels_in: int = 1,
        width: int = 4,
        features: int = 512,
        stem_size: int = 7,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        layout = so3_fields((width,) * 4)
        self.stem = GatedConv3d(
            so3_fields((channels_in,)), layout, stem_size, norm="input", momentum=MOMENTUM, dropout=dropout
        )
        blocks = []
        for stage, count in enumerate(BLOCKS):
            between = so3_fields((width * 2**stage,) * 4)
            for number in range(count):
                last = stage == len(BLOCKS) - 1 and number == count - 1
                after = so3_fields((features,)) if last else between
                stride = 2 if stage and not number else 1
                blocks.append(
                    GatedResidual3d(
                        layout, between, after, stride=stride, momentum=MOMENTUM, dropout=dropout, grid="any"
                    )
                )
                layout = after
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(features, classes)

    def forward(self, volume: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch classes"]:
        """Logits."""
        field: Tensor = self.blocks(self.stem(volume))
        logits: Tensor = self.head(field.mean(dim=(2, 3, 4)))
        return logits


class SE3ResNet34Small(SE3ResNet34):
    """The published steerable network of the CATH experiment: 143,560 parameters for ten classes.

    Parameters
    ----------
    classes, channels_in, stem_size, dropout
        As for :class:`SE3ResNet34`.
    """

    def __init__(self, classes: int = 10, channels_in: int = 1, stem_size: int = 7, dropout: float = 0.1) -> None:
        super().__init__(classes, channels_in, 2, 256, stem_size, dropout)


class SE3ResNet34Large(SE3ResNet34):
    """The same four times as wide as the small one: 2,259,730 parameters for ten classes.

    Parameters
    ----------
    classes, channels_in, stem_size, dropout
        As for :class:`SE3ResNet34`.
    """

    def __init__(self, classes: int = 10, channels_in: int = 1, stem_size: int = 7, dropout: float = 0.1) -> None:
        super().__init__(classes, channels_in, 8, 1024, stem_size, dropout)
