// Package writebuffer owns the local SCO and TLog files of a host's vDisks
// and their states: append, sync, recycle, evict, throttle.
//
// A Buffer is the budget: a bounded number of SCO-sized files in one
// directory, shared by all vDisks of a vPool. A Log is one vDisk's part of it.
// Each ties parts that own their state and have a file or two:
//
//	Buffer
//	  pool        the SCO-sized files that no vDisk uses: pool.go, acquire.go
//	  room        how many files the file system has room for: room.go, share.go
//	  prewriter   has pre-written files in the pool: prewriter.go
//	  evictable   stored SCOs, in the order in which they go: evictable.go
//	  logs        the open logs, from which files can be taken back: logs.go
//	  names       durable names in directories: names.go
//	  openFiles   bounds how many files are open: openfiles.go, places.go
//	Log
//	  section     the append section, which hands out seq, SCO range and TLog
//	              place together (rule O9): section.go, roll.go, marks.go, prepared.go
//	  backlog     sealed SCOs and closed TLogs, until they are stored: backlog.go
//	  rounds      the group commit behind Flush (O2): commit.go, rounds.go
//	  preparer    has the next files ready: prepare.go
//	  syncer      syncs sealed SCOs in the background: syncer.go
//	  present     the SCOs that can be read: present.go
//	  numbers     of SCOs and TLogs: numbers.go
//	  resuming    takes over what a restart found: recover.go, walk.go, resume.go
//	  fate        whether the log can be written, and why not: fate.go
//
// Owner is all that a Log calls upwards: owner.go.
//
// Life of an SCO file:
//
//	pool ──prepare──► next ──first write──► open ──full──► sealed ──sync──► synced
//	  ▲                                                                       │
//	  └────────────── evict (no reader holds it) ◄── stored ◄── Stored (O3) ◄─┘
//
// The directory:
//
//	DIR/pool/N              free files, pre-written, of SCO size
//	DIR/pool/N.raw          free files that are to be pre-written
//	DIR/<vdisk>/sco-...     SCOs of that vDisk
//	DIR/<vdisk>/tlog-...    its TLogs
package writebuffer
