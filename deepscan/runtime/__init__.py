"""From a path to a score: readers, faces, crops, backends, the pipeline and its results."""
