"""Actors on trio with the semantics of OTP: mailboxes, actors, supervisors and a keyed registry.

Owns how tasks are started, watched, restarted and stopped. Knows nothing of conversations, databases or processes, and
imports only trio, attrs and the standard library. Import from the modules; this package re-exports nothing.
"""
