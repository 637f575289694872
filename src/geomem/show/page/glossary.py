r"""The words of the page, one sentence each for a machine-learning engineer.

``docs/glossary.md`` says more. In each section the first place of a word is underlined, and its
sentence shows on hover, focus or tap; at the end of the page all of its words are listed.
"""

from __future__ import annotations

import re

from markupsafe import Markup, escape

GLOSSARY = {
    "memorized information": (
        "How many nats more than on new images the network knows about its own training images: "
        "the control's denoising error minus the network's, summed over noise levels."
    ),
    "memorized density": (
        "Memorized information per e-fold of noise, in one principal direction at one level."
    ),
    "missing information": (
        "What the network has lost beside the population's denoiser, which is known here, in nats."
    ),
    "missing dimension": "Missing information per e-fold of noise, in one direction at one level.",
    "dimension gap": (
        "How many directions the network keeps at held-out images beyond those that it keeps at "
        "training images."
    ),
    "dimension kept": (
        "Along how many directions the denoised image follows its noisy input: the trace of the "
        "denoiser's Jacobian."
    ),
    "lost share": "The share of the control's dimension that is gone at training images.",
    "lost direction": (
        "A direction along which the network keeps less than half of the control's error at "
        "training images, found on one half of them and measured on the other."
    ),
    "tangent space": (
        "The directions along which the network's answer at a noised image follows more than half "
        "of what the image does: leading eigenvectors of its Jacobian."
    ),
    "principal channels": (
        "The leading singular directions of a module's weights, as few as hold half of their "
        "squares."
    ),
    "local dimension": (
        "The number of directions of variation at a single image and noise level, as a named "
        "method finds it."
    ),
    "control": (
        'The denoiser that stands for "has not memorized": the reference network, the linear '
        "control or another, always named."
    ),
    "reference network": (
        "A network that never saw the measured images: what it knows about them can be no memory."
    ),
    "linear control": (
        "The best linear denoiser, fitted to reserved images: it cannot memorize training images."
    ),
    "population control": "The exact denoiser of the distribution behind the data, known here.",
    "exact denoiser": (
        "The posterior mean given the training set alone, in closed form: what a network that "
        "memorizes perfectly would answer."
    ),
    "pilot": "Short trainings on few images, from which a longer one on more is predicted.",
    "held-out images": "Images of the same kind that no network of the run was trained on.",
    "reserved images": (
        "Images that are neither trained on nor held out: they give the principal directions, "
        "the scale and the linear control."
    ),
    "best earlier look": (
        "The look of the same training with the least error at reserved images so far: it has "
        "the network's own strengths and weaknesses."
    ),
    "principal direction": (
        "An eigenvector of the covariance of the reserved images, numbered by falling variance."
    ),
    "noise level": "The standard deviation σ of the Gaussian noise that is added to an image.",
    "rms": "Root-mean-square deviation of the data per coordinate, the unit of noise levels.",
    "nats": "Units of information: one nat is 1.44 bits.",
    "e-fold": "A change of the noise level by the factor e = 2.718.",
    "excess": (
        "By how many nats new images are denoised worse than by the control; below 0, better."
    ),
    "distance ratio": (
        "Distance to the nearest training image over that to the nearest of another group: near "
        "0 for a copy, near 1 for a new image."
    ),
    "p-value": "How often chance alone would give as large a difference.",
    "standard error": "The standard deviation that a number would have, were all of it redone.",
    "bootstrap": "Drawing the measured images anew, with replacement, to see how numbers vary.",
    "image groups": "Images that belong together, such as views of one object, counted as one.",
    "identity check": (
        "The Jacobian's trace and the product of noise and error have one mean for every "
        "denoiser; where they differ, code, schedule or model is at fault."
    ),
    "generalization": (
        "Training images are treated like new ones, within the error of the measurement."
    ),
    "geometric memorization": (
        "Some directions of variation are frozen to the training set while others still vary, "
        "long before any image is copied."
    ),
    "full memorization": (
        "All directions are gone at training images: the model answers with the training image "
        "itself."
    ),
    "inconclusive": "The data are too few, or the errors too large, to say which it is.",
    "drawn alike": (
        "What training and held-out images must be before a difference between them is evidence "
        "of memory; tested without any network."
    ),
    "memorized one by one": (
        "Training images whose nats stand out among those of held-out images, at most 5 % of them "
        "by chance."
    ),
    "conformal p-value": "The rank of one image's number among those of held-out images.",
    "AUC": (
        "The chance that a score ranks a training image above a held-out one: 1 tells all apart, "
        "0.5 is a guess."
    ),
    "window": "The range of noise levels over which nats are summed.",
    "retention": "The kept share of what varies along a direction: 1 is all of it, 0 is none.",
    "effective points": "How many training images share the weight at a noisy image.",
    "undertrained": (
        "Worse than the linear control even at its own training images: nothing can be said "
        "about memorization until it is trained longer."
    ),
}
WRITTEN = {word.lower(): word for word in GLOSSARY}
_WORDS = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, GLOSSARY), key=len, reverse=True)) + r")s?\b", re.I
)


class Explained:
    r"""Marks the first place of each word of the glossary in the texts of one page.

    Attributes:
        seen: The words that are explained already; emptied, they are explained again.
        used: All words that were, with their meaning, in the order of the page.
    """

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.used: dict[str, str] = {}

    def __call__(self, text: str) -> Markup:
        r"""The text as HTML, escaped, with its new words explained."""
        made, done = Markup(""), 0
        for found in _WORDS.finditer(text):
            word = WRITTEN[found[1].lower()]
            if word in self.seen:
                continue
            self.seen.add(word)
            self.used[word] = GLOSSARY[word]
            abbr = Markup('<abbr tabindex="0" title="{}">{}</abbr>').format(
                GLOSSARY[word], found[0]
            )
            made, done = made + escape(text[done : found.start()]) + abbr, found.end()
        return made + escape(text[done:])
