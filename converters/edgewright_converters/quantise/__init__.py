"""One module an algorithm; each turns a float graph and its ranges into a `QuantisedModel`."""

from edgewright_converters.quantise.quantised_model import QuantisedModel, quantise

__all__ = ["QuantisedModel", "quantise"]
