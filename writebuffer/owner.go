package writebuffer

import (
	"context"

	"openvstorage/sco"
	"openvstorage/tlog"
)

// Owner is the vDisk above a Log, and all that a Log calls upwards.
//
// Order. Every seq is passed to ApplyWrite or ApplyEntry once, in order, beginning with
// LogOptions.NextSeq. What a call of Append, TryAppend or AppendEntry has written is
// applied before that call returns, and before the next seq is handed out (O9).
// ClosedTLog comes between the last entry of a TLog and the first one of the next.
// Failed comes once; a call that was under way may still apply its entries after it.
//
// Locks. ApplyWrite, ApplyEntry and ClosedTLog run in the append section, Changed
// and Failed there or elsewhere: none of the five may wait for anything, or call the
// Log, except that Failed may call Log.Fail. Reserve is called with no lock of the
// Log held: it may wait, and call whatever does not wait for a new SCO or TLog. The
// locks that an owner takes in the first five come after that of the append section:
// it holds none of them when it calls the Log.
type Owner interface {
	// ApplyWrite: run clusters from addr on are at loc and the following. An error
	// fails the log.
	ApplyWrite(seq, addr uint64, run int, loc sco.Location) error
	// ApplyEntry: any other ordered entry. An error fails the log.
	ApplyEntry(e tlog.Entry) error
	// ClosedTLog: every entry up to lastSeq is in closed TLogs, none after it, and
	// every SCO that was opened so far is sealed.
	ClosedTLog(id tlog.ID, lastSeq uint64)
	// Reserve returns the numbers below which SCOs and TLogs may be opened, above
	// the given ones, which are the next to be used. Before it returns, it is
	// durable that they may be in use (O11). It is called when the numbers reserved
	// so far are used up, and again after an error.
	Reserve(ctx context.Context, scos sco.Number, tlogs tlog.ID) (sco.Number, tlog.ID, error)
	// Failed: the log cannot be written any more, and why. A log that is closed
	// fails with ErrClosed.
	Failed(err error)
	// Changed: there may be something to store; see Log.Work. It wakes whoever stores.
	Changed()
}
