"""``cxrssl index``: the folder of a release becomes an index, and is counted."""
