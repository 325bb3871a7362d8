"""The archive as its edges and workers see it: one object with every use case."""

from dataclasses import dataclass

from node.ports import Catalog, Codecs, Leases, Peers
from node.services.access import Access, EntityPolicy
from node.services.ingest import Ingest
from node.services.metadata import Metadata
from node.services.objects import Objects
from node.services.remove import Remove
from node.services.retrieve import Retrieve
from node.services.search import Search


@dataclass(frozen=True, slots=True)
class Archive:
    """Built once per process by `node.bootstrap`."""

    ingest: Ingest
    search: Search
    retrieve: Retrieve
    metadata: Metadata
    remove: Remove
    access: Access
    policy: EntityPolicy
    objects: Objects
    catalog: Catalog
    leases: Leases
    codecs: Codecs
    peers: Peers

    def check(self) -> None:
        """Return while catalog and objects answer and take writes; otherwise raise the Refusal."""
        self.catalog.check()
        self.objects.check()

    def close(self) -> None:
        """Release connections and end the decoders."""
        self.codecs.close()
        self.objects.close()
        self.catalog.close()
