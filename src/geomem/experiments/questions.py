r"""What the paper's reviewers asked, and where it is answered: a page of questions.

An answer that an experiment gives is its verdict and its sentence, from its document, so that
no number is typed; the other answers are pages of the documentation, by their place beside
``results``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Question:
    r"""A question and where it is answered.

    Attributes:
        text: The question.
        experiments: Names of experiments that answer it.
        pages: Other pages: what they say, by their file.
    """

    text: str
    experiments: tuple[str, ...] = ()
    pages: Mapping[str, str] | None = None


QUESTIONS = (
    Question(
        "Where is “higher variance is lost first” shown?",
        ("linear-subspaces", "linear-steps", "images-subspaces"),
        {"../higher-variance.md": "In theory, under which conditions it holds at all"},
    ),
    Question(
        "What are the precise predictions, and do they hold, beyond “qualitative agreement”?",
        ("linear-panel", "linear-sizes", "linear-times"),
        {"../predictions.md": "The paper's levels, collapse and the exact ones beside brute force"},
    ),
    Question(
        "Jacobians at which points: where the score is zero, at data, on the trajectory? And what "
        "happens as t grows?",
        ("linear-times",),
        {
            "../origin-figure.md": "At x = 0, where the paper looks",
            "../spectrum.md": "At training, held-out and given points, over levels",
            "../audit.md": "Along a network's own trajectories",
        },
    ),
    Question(
        "What of non-linear manifolds, such as a sphere?",
        ("sphere",),
        {"../sphere.md": "Exact denoisers on the sphere and the plane of equal covariance"},
    ),
    Question(
        "How does it relate to copies, the practical meaning of memorization?",
        ("regimes",),
        {"../measure.md": "What is called a copy, and with which error"},
    ),
    Question(
        "Trained networks do not learn the empirical score: what do they do?",
        ("images-dimension", "epochs"),
        {"../exact.md": "Exact denoisers, what they are and cost"},
    ),
    Question(
        "Singular vectors move, too, not only singular values. Do they?",
        ("rotation",),
    ),
    Question(
        "How does it compare with other estimates of local dimension (normal bundle, FLIPD, "
        "density-based ones)?",
        ("images-dimension",),
        {"../local-dimension.md": "Each method where the dimension is known"},
    ),
    Question(
        "Does it work for larger models?",
        (),
        {
            "../performance.md": "What products and spectra cost, without matrices",
            "../audit.md": "Audits of models of others, within a budget",
        },
    ),
)


def questions_page(documents: Iterable[Mapping[str, Any]]) -> str:
    r"""The page as Markdown, from the documents that there are."""
    known = {d["name"]: d for d in documents}
    parts = [
        "# Reviewers' questions, answered",
        "What was asked about the paper in public, and what is measured here. Verdicts and numbers "
        "are those of the linked pages, which their commands write from records.",
    ]
    for question in QUESTIONS:
        lines = []
        for name in question.experiments:
            if name in known:
                one = known[name]
                lines.append(
                    f"- [{one['title']}]({name}.md): **{one['verdict']}**. {one['why']} "
                    f"*Not decided there:* {one['limits']}"
                )
            else:
                lines.append(f"- Not run yet: `geomem reproduce {name}`.")
        lines += [f"- {text}: []({page})." for page, text in (question.pages or {}).items()]
        parts += [f"## {question.text}", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"
