"""Templates of HTML pages: every text that they are given is somebody else's."""

from jinja2 import Environment, PackageLoader, StrictUndefined

from rllab.evals.cells import printable


def templates(package: str, folder: str) -> Environment:
    """The templates in a folder of a package. Texts are escaped, and what no page takes is shown as numbers."""
    return Environment(
        loader=PackageLoader(package, folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
