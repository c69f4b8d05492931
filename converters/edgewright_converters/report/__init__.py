"""The report of a conversion as one HTML page that needs nothing else: a module a picture, `page` around them."""

from edgewright_converters.report.page import page, write_page

__all__ = ["page", "write_page"]
