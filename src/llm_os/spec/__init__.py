"""The nouns: what users declare, what the system records, what happened. No I/O, no sibling packages."""
