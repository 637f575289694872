r"""For those who write their own: what a denoiser, a method or a probe must satisfy, in one call.

.. code-block:: python

    from geomem.testing import check_spectrum_method

    def test_mine():
        check_spectrum_method(Mine(depth=16))

Each check raises an ``AssertionError`` that says in a sentence what does not hold. They ask for
what every measurement relies on: known answers on known cases, errors that are neither too
small nor too large, the same answer for the same seed, and nothing else on the machine changed.
"""

from geomem.testing.denoisers import check_denoiser
from geomem.testing.dimensions import check_dimension_method
from geomem.testing.probes import check_probe
from geomem.testing.spectra import Products, check_spectrum_method

__all__ = [
    "Products",
    "check_denoiser",
    "check_dimension_method",
    "check_probe",
    "check_spectrum_method",
]
