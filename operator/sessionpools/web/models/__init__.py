"""Bodies and answers of the REST API: camelCase is written, and every casing of a key is read."""
