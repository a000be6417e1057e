"""The contract, an area a file: each class holds the tests of one paragraph of the written meanings.

`vectorkit.testing.contract` joins them; nothing else imports them.
"""
