"""The relay agent of a mobility anchor and access router (MAAR): it learns from the CMD and moves flows (RFC 8885)."""
