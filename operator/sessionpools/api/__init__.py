"""The kinds SessionPool and WebService, their CRDs, and the names that the whole project shares."""
