"""What a merge may join two modules with, and how people tell the candidates apart."""

from __future__ import annotations

from enum import StrEnum


class Candidate(StrEnum):
    """A way to join two modules, simplest first: of two with the same error the simpler is taken.

    The values travel in evaluation requests and are stored in the database and in signed commits.
    """

    NO_ADAPTER = "no_adapter"
    CLOSED_FORM = "closed_form"
    ZERO_SAMPLE = "zero_sample"
    FEW_SAMPLE = "few_sample"
    REFINED = "refined"
    OWN_SAMPLES = "own_samples"
    """Learned and judged on the operator's samples; no lab is asked about it."""

    @property
    def label(self) -> str:
        """Short: the heading of a column, the name of a bar."""
        return _LOOKS[self][0]

    @property
    def phrase(self) -> str:
        """What completes "joined by"."""
        return _LOOKS[self][1]

    @property
    def colour(self) -> str:
        """The colour of its bar, in hex."""
        return _LOOKS[self][2]


_LOOKS = {
    Candidate.NO_ADAPTER: ("no adapter", "no adapter", "#9aa0a8"),
    Candidate.CLOSED_FORM: ("closed form", "the closed-form adapter", "#c9734a"),
    Candidate.ZERO_SAMPLE: ("zero samples", "the zero-sample adapter", "#e0a030"),
    Candidate.FEW_SAMPLE: ("few samples", "the few-sample adapter", "#4a90c2"),
    Candidate.REFINED: ("refined", "the adapter refined at the lab", "#3f8f55"),
    Candidate.OWN_SAMPLES: (
        "own samples",
        "what was learned on the operator's own samples",
        "#7a5ca8",
    ),
}
