"""Dense Bio-entities Recognition: names of known entities, found again in a sentence.

A knowledge base of typed names (store, sources), phrases of a sentence that are worth looking up
(phrases), the names most like a phrase (retrieval), and training rows made of such names (rows).
Needs the extra `[dbr]`, whose libraries are imported when they are used.
"""
