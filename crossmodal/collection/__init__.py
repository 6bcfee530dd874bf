"""Collections: records with their embeddings on disk, added to, searched and checked."""

from crossmodal.collection.adding import AddReport as AddReport
from crossmodal.collection.adding import Progress as Progress
from crossmodal.collection.agreement import Agreement as Agreement
from crossmodal.collection.collection import Collection as Collection
from crossmodal.collection.collection import CollectionInfo as CollectionInfo
from crossmodal.collection.schema import StoredRecord as StoredRecord
from crossmodal.collection.verifying import VerifyReport as VerifyReport
