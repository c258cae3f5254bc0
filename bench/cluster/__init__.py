"""Cells as tasks of a Ray cluster (`executor=ray`). Ray decides what runs where and when; nothing here schedules.

`crew` is the side that asks (the command), `node` the side that runs, `parcel` what travels between them, `demand` what
a cell asks Ray for. A node gets everything by content and gives everything back by content, so no file system is shared
and the command stays the only writer of a run's folder. Ray is imported when the first order is handed over.
"""
