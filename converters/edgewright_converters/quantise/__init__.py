"""One module an algorithm; each turns a float graph (and its ranges, for static INT8) into a `QuantisedModel`."""

from edgewright_converters.quantise.quantised_model import QuantisedModel, quantise, quantise_as

__all__ = ["QuantisedModel", "quantise", "quantise_as"]
