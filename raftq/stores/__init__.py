"""Where the state machine's keys live: three engines behind one interface.

``store`` is the interface, ``overlay`` the round's pending writes, ``rocks``,
``memory`` and ``sqlite`` the engines, ``home`` the place on disk and ``verify``
the offline check. ``DESIGN.md`` beside this file says why.
"""
