"""Who may do what: users, passwords, tokens and their keys, roles, the limit on logins, the audit log.

No web framework here: `sessionpools.web` makes routes and dependencies of `logins.Logins` (log in, refresh, revoke, and
whose a token is), `roles.require` (may they?) and `audit.record`. What goes wrong is an `errors.AuthError`, which knows
its status code. The gateway verifies the same tokens without asking anyone; `keystore` publishes the keys for it.
"""
