"""Machines without a network: what they need goes there in parts of a size, and what they recorded comes back so.

``pins``, ``wheels`` and ``checkout`` know what a kit holds, ``parts`` cuts and joins, ``install`` runs on the host,
``harvest`` packs its results. What runs on the host stands on Python's standard library only.
"""
