"""One module an algorithm; `decision` turns what they decided into a `QuantisedModel` for either target."""

from edgewright_converters.quantise.quantised_model import QuantisedModel

__all__ = ["QuantisedModel"]
