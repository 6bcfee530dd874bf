"""What a recipe says of the loss."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LossSettings:
    """The loss, and what each kind of it wants to know.

    ``kind``: a name, or several joined by ``+`` for their sum, with ``weights`` in the same order (1 each
    where there are none). ``max_scale``: what the learnt scale counts for at most. InfoNCE:
    ``label_smoothing``; ``hn_beta``, how much more a hard negative weighs (0: all alike, .25 to .5 in the
    paper), and ``hn_alpha``. Triplets: ``margin``; ``mean_hinge_steps``, for how long hinges are averaged.
    """

    kind: str = "infonce"
    weights: tuple[float, ...] = ()
    max_scale: float = 100.0
    label_smoothing: float = 0.0
    hn_beta: float = 0.0
    hn_alpha: float = 1.0
    margin: float = 0.2
    mean_hinge_steps: int = 0

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.kinds):
            raise ValueError(
                f"{self.kind!r} names {len(self.kinds)} losses and has {len(self.weights)} weights; "
                "give one for each, or none"
            )
        for name, least in (("max_scale", 1), ("hn_beta", 0), ("margin", 0), ("mean_hinge_steps", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} is {least} or more, not {getattr(self, name)}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is from 0 to below 1, not {self.label_smoothing}")
        if not 0 <= self.hn_alpha <= 1:
            raise ValueError(f"hn_alpha is from 0 to 1, not {self.hn_alpha}")
        if self.label_smoothing and (self.hn_beta or self.hn_alpha != 1):
            raise ValueError(
                "label_smoothing and hn_beta or hn_alpha exclude one another; leave one of them out"
            )

    @property
    def kinds(self) -> list[str]:
        """The names of the losses that are summed."""
        return [name.strip() for name in self.kind.split("+")]
