// Package writebuffer owns the local SCO and TLog files of a host's vDisks
// and their states: append, sync, recycle, evict, throttle.
//
// A Buffer is the budget: a bounded number of SCO-sized files in one
// directory, shared by all vDisks of a vPool. A Log is one vDisk's part of it:
// the append section that hands out seq, SCO range and TLog place together
// (rule O9), the group commit behind Flush (O2), and the sealed SCOs and closed
// TLogs that wait to be stored in the backend.
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
