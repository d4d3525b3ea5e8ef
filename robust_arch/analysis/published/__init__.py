"""Results of others: a published table becomes a study that is read like the project's own."""

from robust_arch.analysis.published.imported import Imported, import_results
from robust_arch.analysis.published.mapping import Mapping, mapping_names, read_mapping
from robust_arch.analysis.published.provenance import Provenance, provenance_of

__all__ = [
    "Imported",
    "Mapping",
    "Provenance",
    "import_results",
    "mapping_names",
    "provenance_of",
    "read_mapping",
]
