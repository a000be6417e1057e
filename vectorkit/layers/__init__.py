"""Adapters around adapters: what a store lacks, added below `Checked` once for all that lack it."""
