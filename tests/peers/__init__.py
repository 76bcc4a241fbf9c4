"""How well-known Python libraries behave under the laws of behaviour of CONTRACT.md: ``tox -e peers``."""
