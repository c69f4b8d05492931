"""One module an algorithm; `decision` turns what those of static INT8 decided into a model of either format."""

from edgewright_converters.quantise.quantised_model import QuantisedModel, quantise_as

__all__ = ["QuantisedModel", "quantise_as"]
